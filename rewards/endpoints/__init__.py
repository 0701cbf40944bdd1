"""Scorers behind HTTP: the client that rewards ask by, and a server that makes one of any reward."""

"""Samples for people: a picture of each, and a file that plays it."""

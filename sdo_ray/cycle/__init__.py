"""What a cycle of several jobs remembers, and that one driver at a time works on it."""

"""What can be trained in a model: one file a kind, one line each in `registry`."""

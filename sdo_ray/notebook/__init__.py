"""Gradients and alignment in a notebook or a program of one process: no Ray, no MLflow, no settings file."""

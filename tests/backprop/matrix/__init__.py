"""The pipelines of diffusers, built small from their own classes, and the checks that each has to pass."""

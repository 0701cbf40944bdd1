"""Rewards without a gradient on the embedded model; `python -m benchmarks.black_box --help`."""

"""Sampling steps without a graph that cost less: held and continued, or computed by a fast copy of the denoiser."""

"""The published estimators, each a choice of steps, scales and couplings. Importing registers them."""

from sdo_ray.backprop.estimators import draft, full, sdo

__all__ = ["draft", "full", "sdo"]

"""The published estimators, each a choice of steps, scales and couplings. Importing registers them."""

from sdo_ray.backprop.estimators import alignprop, draft, drtune, flowbp, flowbp_lagrange, full, leapalign, refl, sdo

__all__ = ["alignprop", "draft", "drtune", "flowbp", "flowbp_lagrange", "full", "leapalign", "refl", "sdo"]

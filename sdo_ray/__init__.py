"""Reward alignment of diffusion models on Ray.

The two names below work in a notebook without Ray or MLflow: they import torch and diffusers only, and only when used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdo_ray.backprop import differentiable_sample, make_plan

__all__ = ["differentiable_sample", "make_plan"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from sdo_ray import backprop

        return getattr(backprop, name)
    raise AttributeError(f"module 'sdo_ray' has no attribute {name!r}; it has {', '.join(__all__)}")

"""Reward alignment of diffusion models on Ray.

The names below work in a notebook without Ray or MLflow, and are imported when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdo_ray.backprop.sample import differentiable_sample
    from sdo_ray.notebook.aligner import Aligner
    from sdo_ray.notebook.plan import make_plan

__all__ = ["Aligner", "differentiable_sample", "make_plan"]

_PLACES = {
    "Aligner": "sdo_ray.notebook.aligner",
    "differentiable_sample": "sdo_ray.backprop.sample",
    "make_plan": "sdo_ray.notebook.plan",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'sdo_ray' has no attribute {name!r}; it has {', '.join(__all__)}")

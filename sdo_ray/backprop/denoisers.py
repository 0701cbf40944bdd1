"""Which components of a pipeline are its denoisers."""

from collections.abc import Collection
from typing import Any

import torch

DENOISERS = (
    ("unet",),
    ("transformer", "transformer_2", "unconditional_transformer"),
    ("image_unet",),
    ("decoder",),
    ("prior",),
)
"""Where diffusers pipelines keep what they denoise with: the first of these groups that a pipeline has is its denoiser.
One with experts for two noise ranges has both transformers, one with a model of its own for guidance that one too."""


def denoiser_names(components: Collection[str]) -> tuple[str, ...]:
    """Those of the names in `components` that are denoisers; none if there is none."""
    for group in DENOISERS:
        if found := tuple(name for name in group if name in components):
            return found
    return ()


def denoisers_of(pipeline: Any) -> dict[str, torch.nn.Module]:
    """The pipeline's denoisers by component name, none if it has none."""
    names = [name for group in DENOISERS for name in group]
    found = {name: part for name in names if isinstance(part := getattr(pipeline, name, None), torch.nn.Module)}
    return {name: found[name] for name in denoiser_names(found)}


def names_of_denoisers() -> str:
    """All of them, for messages."""
    return ", ".join(name for group in DENOISERS for name in group)

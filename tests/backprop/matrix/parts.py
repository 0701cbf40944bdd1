"""Tiny instances of diffusers' own model classes: the fewest layers and channels that each class accepts."""

from typing import Any

import diffusers
import torch

from .autoencoders import AUTOENCODERS
from .convolutional import CONVOLUTIONAL
from .transformer_parts import TRANSFORMERS

TINY = AUTOENCODERS | CONVOLUTIONAL | TRANSFORMERS


def part(name: str, **changes: Any) -> torch.nn.Module:
    """A tiny model of the diffusers class `name`.

    Raises:
        KeyError: no recipe for this class.
    """
    if name in ("PaellaVQModel", "WuerstchenPrior", "WuerstchenDiffNeXt"):
        from diffusers.pipelines.deprecated import wuerstchen

        return getattr(wuerstchen, name)(**TINY[name] | changes)
    return getattr(diffusers, name)(**TINY[name] | changes)

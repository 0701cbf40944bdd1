"""Gradient checkpointing of a network's blocks (Chen et al. 2016, arXiv 1604.06174), as diffusers has it.

A block keeps its inputs alone and is run again during the backward pass: the same gradient to the bit, a fraction of
the memory, one more forward pass of what has a graph. Without a graph it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def checkpoint_as_set(pipeline: DiffusionPipeline, checkpoint: bool | None) -> None:
    """Switch it on in all of a pipeline's networks where `model.checkpoint_blocks` says so.

    Args:
        pipeline: on its device.
        checkpoint: the setting; None: on GPUs.
    """
    if pipeline.device.type == "cuda" if checkpoint is None else checkpoint:
        checkpoint_blocks(pipeline.components.values())


def checkpoint_blocks(modules: Iterable[object]) -> list[torch.nn.Module]:
    """Switch it on in those of `modules` whose class has it; returns these."""
    found = [
        module
        for module in modules
        if isinstance(module, torch.nn.Module) and getattr(module, "_supports_gradient_checkpointing", False)
    ]
    for module in found:
        module.enable_gradient_checkpointing()  # type: ignore[operator]
    return found

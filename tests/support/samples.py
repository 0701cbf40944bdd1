"""Pipelines in miniature that make no images, as directories in diffusers format, and rewards of what they make."""

from pathlib import Path
from typing import Any

import torch

from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES


def saved(name: str, directory: Path, **parts: Any) -> Path:
    """The pipeline of the matrix of that name, without its "Pipeline", as `save_pretrained` writes it."""
    assemble(f"{name}Pipeline", CASES[name].parts | parts).save_pretrained(directory)
    return directory


class Steadiness:
    """How little videos change from frame to frame, at most 0."""

    differentiable = True
    modality = "video"

    def __call__(self, videos: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Of videos [B, F, 3, H, W]."""
        return -videos.diff(dim=1).square().mean((1, 2, 3, 4))


class Loudness:
    """Mean power of sounds."""

    differentiable = True
    modality = "audio"

    def __call__(self, audio: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Of audio [B, C, T]."""
        return audio.square().mean((1, 2))


class Shortness:
    """Minus the length of paths [B, 2, T]."""

    differentiable = True
    modality = "any"

    def __call__(self, paths: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Of any tensors whose last dimension is time."""
        return -paths.diff(dim=-1).square().flatten(1).mean(1)

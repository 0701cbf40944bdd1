"""Adapters for tests."""

from pathlib import Path

import torch

from sdo_ray.models.trained.lora import LoraSettings, initial

LORA = LoraSettings(rank=2, alpha=6.0, targets=["to_q", "to_v", "conv1"])
"""With alpha != rank, so that a lost alpha shows, and on convolutions too."""


def trained_weights(base: Path | str, lora: LoraSettings = LORA, seed: int = 1) -> dict[str, torch.Tensor]:
    """Weights as after some training: B is not zero any more."""
    draw = torch.Generator().manual_seed(seed)
    weights = initial(str(base), "float32", lora, seed)
    return {name: tensor + 0.3 * torch.randn(tensor.shape, generator=draw) for name, tensor in weights.items()}

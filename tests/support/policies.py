"""A policy that has learned something, whatever it is."""

import torch

from sdo_ray.models.policy import initial_policy
from sdo_ray.models.settings import ModelSettings


def moved_policy(model: ModelSettings, size: float = 0.05) -> dict[str, torch.Tensor]:
    """The first policy and noise of standard deviation `size`, with which no factor of a LoRA is zero any more."""
    noise = torch.Generator().manual_seed(2)
    return {n: w + size * torch.randn(w.shape, generator=noise) for n, w in initial_policy(model, 0).items()}

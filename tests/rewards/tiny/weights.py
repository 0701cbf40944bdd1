"""Weights that are the same on every machine and with every version of torch, for tiny instances of real networks."""

import torch
from torch import nn


def filled(module: nn.Module) -> nn.Module:
    """The module with every parameter a sine of its own; scales of normalisations are around 1."""
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(module.named_parameters())):
            wave = torch.sin(1.7 * torch.arange(parameter.numel(), dtype=torch.float64) ** 1.1 + number + 1)
            is_scale = parameter.ndim == 1 and "norm" in name.lower() and name.endswith("weight")
            size = 1.5 / max(parameter[0].numel(), 4) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_((size * wave).view_as(parameter) + is_scale)
    return module.eval()

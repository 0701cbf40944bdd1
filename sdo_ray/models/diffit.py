"""DiffFit (Xie et al. 2023, arXiv 2304.06648): train biases, norms and added scales, a thousandth of the weights.

A scale gamma, 1 at first, multiplies the output of a layer, so that a block's residual becomes x + gamma f(x). It can
be multiplied into the layer's weights, which makes the trained model a plain one again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sdo_ray.models.adapter import matching_layers
from sdo_ray.models.settings import DiffFitSettings

SCALE = "diffit_scale"
"""The scale's name as a parameter of its layer, [1]."""


def attach_diffit(denoisers: Mapping[str, torch.nn.Module], settings: DiffFitSettings) -> None:
    """Make every one-dimensional parameter (biases, norms) trainable, and add the scales; the images stay.

    Args:
        denoisers: frozen denoisers by component name.
        settings: which layers get a scale.

    Raises:
        SettingsError: if no layer's name ends with one of `settings.scales`.
    """
    for name, denoiser in denoisers.items():
        scaled = matching_layers(denoiser, settings.scales, f"the {name}", "model.diffit.scales")
        for module in denoiser.modules():
            own = list(module.parameters(recurse=False))
            if any(parameter.dim() == 1 for parameter in own):
                for parameter in own:
                    # A layer's parameters stay of one type; autocast multiplies in half precision all the same.
                    parameter.data = parameter.data.float()
                    parameter.requires_grad_(parameter.dim() == 1)
        for layer in scaled:
            device = next(layer.parameters()).device
            layer.register_parameter(SCALE, torch.nn.Parameter(torch.ones(1, device=device)))
            layer.register_forward_hook(_scale)


@torch.no_grad()
def merge_diffit(denoisers: Mapping[str, torch.nn.Module]) -> None:
    """Multiply the scales into their layers' weights, and take them off."""
    for denoiser in denoisers.values():
        for layer in denoiser.modules():
            if hasattr(layer, SCALE):
                scale = getattr(layer, SCALE).detach()
                delattr(layer, SCALE)
                for parameter in layer.parameters(recurse=False):
                    parameter.mul_(scale)
                ours = [key for key, hook in layer._forward_hooks.items() if hook is _scale]
                for key in ours:
                    del layer._forward_hooks[key]


def _scale(layer: torch.nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
    return output * getattr(layer, SCALE).to(output.dtype)

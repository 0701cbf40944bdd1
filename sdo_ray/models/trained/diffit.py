"""DiffFit (Xie et al. 2023, arXiv 2304.06648): train biases, norms and added scales, a thousandth of the weights.

A scale gamma, 1 at first, multiplies the output of a layer, so that a block's residual becomes x + gamma f(x). It can
be multiplied into the layer's weights, which makes the trained model a plain one again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field

from sdo_ray.models.denoisers import denoisers_among, load_denoisers
from sdo_ray.models.parameters import trained_values
from sdo_ray.models.trained.layers import matching_layers
from sdo_ray.settings import Settings

SCALE = "diffit_scale"
"""The scale's name as a parameter of its layer, [1]."""


class DiffFitSettings(Settings):
    """DiffFit (arXiv 2304.06648): biases, the weights of norms, and a scale on the output of some layers."""

    scales: list[str] = Field(
        default=["to_out.0", "ff.net.2"],
        description="Endings of the names of the denoiser's linear and convolution layers that get a scale.",
    )


def attach(components: Mapping[str, object], settings: DiffFitSettings) -> dict[str, torch.nn.Module]:
    """Make every one-dimensional parameter (biases, norms) trainable, and add the scales; otherwise, see `Kind`."""
    denoisers = denoisers_among(components)
    for name, denoiser in denoisers.items():
        scaled = matching_layers(denoiser, settings.scales, f"the {name}", "diffit.scales")
        for module in denoiser.modules():
            own = list(module.parameters(recurse=False))
            if any(parameter.dim() == 1 for parameter in own):
                for parameter in own:
                    # A layer's parameters stay of one type.
                    parameter.data = parameter.data.float()
                    parameter.requires_grad_(parameter.dim() == 1)
        for layer in scaled:
            device = next(layer.parameters()).device
            layer.register_parameter(SCALE, torch.nn.Parameter(torch.ones(1, device=device)))
            layer.register_forward_hook(_scale)
    return denoisers


def initial(
    base: str, dtype: str, settings: DiffFitSettings, seed: int, types: Mapping[str, str] | None = None
) -> dict[str, torch.Tensor]:
    """See `Kind`: the base's own values, and scales of one."""
    return trained_values(attach(load_denoisers(base, dtype, types), settings))


@torch.no_grad()
def merge(modules: Mapping[str, torch.nn.Module]) -> None:
    """Multiply the scales into their layers' weights, and take them off."""
    for module in modules.values():
        for layer in module.modules():
            if hasattr(layer, SCALE):
                scale = getattr(layer, SCALE).detach()
                delattr(layer, SCALE)
                for parameter in layer.parameters(recurse=False):
                    parameter.mul_(scale)
                ours = [key for key, hook in layer._forward_hooks.items() if hook is _scale]
                for key in ours:
                    del layer._forward_hooks[key]


def adapter_writer(base: str, settings: DiffFitSettings) -> None:
    """See `Kind`: diffusers has no file for biases."""


def beyond_denoisers(settings: DiffFitSettings) -> None:
    """See `Kind`."""


def _scale(layer: torch.nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
    return output * getattr(layer, SCALE).to(output.dtype)

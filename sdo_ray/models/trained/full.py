"""The whole denoiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sdo_ray.models.denoisers import denoisers_among, load_denoisers
from sdo_ray.models.parameters import trained_values


def attach(components: Mapping[str, object], settings: None) -> dict[str, torch.nn.Module]:
    """See `Kind`."""
    denoisers = denoisers_among(components)
    for denoiser in denoisers.values():
        # Adam's small steps are lost in half precision.
        denoiser.float().requires_grad_(True)
    return denoisers


def initial(
    base: str, dtype: str, settings: None, seed: int, types: Mapping[str, str] | None = None
) -> dict[str, torch.Tensor]:
    """See `Kind`."""
    return trained_values(attach(load_denoisers(base, dtype, types), settings))


def merge(modules: Mapping[str, torch.nn.Module]) -> None:
    """See `Kind`: they are the modules' own weights."""


def adapter_writer(base: str, settings: None) -> None:
    """See `Kind`."""


def beyond_denoisers(settings: None) -> None:
    """See `Kind`."""

"""The LoRA adapter inside a pipeline: attach it, read and write its weights, switch it off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from sdo_ray.models.denoisers import denoiser_skeletons, find_denoisers
from sdo_ray.models.settings import LoraSettings
from sdo_ray.settings import SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ADAPTER = "aligned"
"""The adapter's name inside PEFT."""


def attach_lora(denoisers: Mapping[str, torch.nn.Module], settings: LoraSettings) -> None:
    """Add a trainable float32 LoRA to every denoiser; the pictures stay as they were, for B starts at zero.

    Args:
        denoisers: frozen denoisers by component name, with weights or on the meta device.
        settings: rank, scale and layers.

    Raises:
        SettingsError: if no layer's name ends with one of the targets.
    """
    from peft import LoraConfig

    for name, denoiser in denoisers.items():
        unmatched = [
            t for t in settings.targets if not any(n == t or n.endswith("." + t) for n, _ in _layers(denoiser))
        ]
        if unmatched:
            endings = sorted({n.rsplit(".", 1)[-1] for n, _ in _layers(denoiser)})
            raise SettingsError(
                f"model.lora.targets: no linear or convolution layer of the {name} ends with {', '.join(unmatched)}; "
                f"its layers end with {', '.join(endings)}."
            )
        config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=settings.targets)
        denoiser.add_adapter(config, adapter_name=ADAPTER)
        for parameter in denoiser.parameters():
            if parameter.requires_grad:
                # Adam's small steps are lost in half precision.
                parameter.data = parameter.data.float()


def adapter_parameters(denoisers: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Parameter]:
    """The trained parameters, `{"unet.mid_block...lora_A...": [r, in]}`, in an order that is the same everywhere."""
    return {
        f"{component}.{name}": parameter
        for component, denoiser in denoisers.items()
        for name, parameter in sorted(denoiser.named_parameters())
        if parameter.requires_grad
    }


def initial_adapter(base: str, settings: LoraSettings, seed: int) -> dict[str, torch.Tensor]:
    """Policy version 0, from the shapes of the base model alone: no weights are read, and every machine gets the same.

    Factor A is drawn uniformly from +-1/sqrt(fan in), B is zero, as PEFT starts them.

    Args:
        base: the base model's reference.
        settings: rank, scale and layers.
        seed: fixes A.

    Returns:
        Name -> float32 tensor, named as in `adapter_parameters`.

    Raises:
        SettingsError: the base has no denoiser, or no layer's name ends with one of the targets.
    """
    denoisers = denoiser_skeletons(base)
    attach_lora(denoisers, settings)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in adapter_parameters(denoisers).items():
        weights[name] = torch.zeros(parameter.shape)
        if ".lora_A." in name:
            bound = parameter[0].numel() ** -0.5
            weights[name].uniform_(-bound, bound, generator=generator)
    return weights


@torch.no_grad()
def set_adapter(denoisers: Mapping[str, torch.nn.Module], state: Mapping[str, torch.Tensor]) -> None:
    """Copy weights named as in `adapter_parameters` into the attached adapter.

    Raises:
        KeyError: if the names differ; both differences are listed.
    """
    parameters = adapter_parameters(denoisers)
    if parameters.keys() != state.keys():
        missing, unknown = sorted(parameters.keys() - state.keys()), sorted(state.keys() - parameters.keys())
        raise KeyError(f"adapter weights do not fit the model: missing {missing[:3]}, unknown {unknown[:3]}")
    for name, parameter in parameters.items():
        parameter.copy_(state[name])


@contextmanager
def adapter_off(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Sample from the base model inside the block."""
    for denoiser in find_denoisers(pipeline).values():
        denoiser.disable_adapters()
    try:
        yield
    finally:
        for denoiser in find_denoisers(pipeline).values():
            denoiser.enable_adapters()


def _layers(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d):
            yield name, layer

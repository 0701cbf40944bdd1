"""The LoRA adapter inside a pipeline: attach it, start it, merge it, switch it off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from sdo_ray.models.denoisers import (
    denoiser_skeletons,
    find_denoisers,
    find_text_encoders,
    text_encoder_skeletons,
)
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.settings import LoraSettings
from sdo_ray.settings import SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ADAPTER = "aligned"
"""The adapter's name inside PEFT."""


def attach_lora(denoisers: Mapping[str, torch.nn.Module], settings: LoraSettings) -> None:
    """Add a trainable float32 LoRA to every denoiser; the images stay as they were, for B starts at zero.

    Args:
        denoisers: frozen denoisers by component name, with weights or on the meta device.
        settings: rank, scale and layers.

    Raises:
        SettingsError: if no layer's name ends with one of the targets.
    """
    for name, denoiser in denoisers.items():
        matching_layers(denoiser, settings.targets, f"the {name}", "model.lora.targets")
        _add_lora(denoiser, settings, settings.targets)


def attach_text_lora(text_encoders: Mapping[str, torch.nn.Module], settings: LoraSettings) -> None:
    """The same for the text encoders that have layers of these names; those of other architectures are left alone.

    Raises:
        SettingsError: if no layer of any text encoder ends with one of the targets.
    """
    fitting = {
        name: targets
        for name, encoder in text_encoders.items()
        if (targets := [t for t in settings.text_encoder_targets if _ending(encoder, t)])
    }
    if unmatched := set(settings.text_encoder_targets) - {t for targets in fitting.values() for t in targets}:
        endings = sorted({n.rsplit(".", 1)[-1] for encoder in text_encoders.values() for n, _ in _layers(encoder)})
        raise SettingsError(
            f"model.lora.text_encoder_targets: no linear layer of a text encoder ends with "
            f"{', '.join(sorted(unmatched))}; their layers end with {', '.join(endings) or 'nothing: there are none'}."
        )
    for name, targets in fitting.items():
        _add_lora(text_encoders[name], settings, targets)


def matching_layers(module: torch.nn.Module, endings: Sequence[str], whose: str, setting: str) -> list[torch.nn.Module]:
    """The linear and convolution layers whose names end with one of `endings`.

    Args:
        module: where to look.
        endings: of dotted names, each a whole number of parts.
        whose: in words, for the error.
        setting: where the endings were given, for the error.

    Raises:
        SettingsError: if one of the endings matches nothing.
    """
    if unmatched := [ending for ending in endings if not _ending(module, ending)]:
        there = sorted({n.rsplit(".", 1)[-1] for n, _ in _layers(module)})
        raise SettingsError(
            f"{setting}: no linear or convolution layer of {whose} ends with {', '.join(unmatched)}; "
            f"its layers end with {', '.join(there)}."
        )
    return [layer for name, layer in _layers(module) if any(_ends(name, ending) for ending in endings)]


def initial_lora(base: str, settings: LoraSettings, seed: int) -> dict[str, torch.Tensor]:
    """Policy version 0, from the shapes of the base model alone: no weights are read, and every machine gets the same.

    Factor A is drawn uniformly from +-1/sqrt(fan in), B is zero, as PEFT starts them.

    Args:
        base: the base model's reference.
        settings: rank, scale and layers.
        seed: fixes A.

    Returns:
        Name -> float32 tensor, named as in `trained_parameters`.

    Raises:
        SettingsError: the base has no denoiser, or no layer's name ends with one of the targets.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in trained_parameters(adapted_skeletons(base, settings)).items():
        weights[name] = torch.zeros(parameter.shape)
        if ".lora_A." in name:
            bound = parameter[0].numel() ** -0.5
            weights[name].uniform_(-bound, bound, generator=generator)
    return weights


def adapted_skeletons(base: str, settings: LoraSettings) -> dict[str, torch.nn.Module]:
    """The parts of a base model that get a LoRA, with it, on the meta device; the errors are those of attaching."""
    denoisers = denoiser_skeletons(base)
    attach_lora(denoisers, settings)
    if not settings.text_encoder_targets:
        return denoisers
    text_encoders = text_encoder_skeletons(base)
    attach_text_lora(text_encoders, settings)
    return denoisers | text_encoders


def merge_lora(modules: Mapping[str, torch.nn.Module]) -> None:
    """Add the adapters, where there are any, to the weights of their layers, and take them off."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in modules.values():
        adapted = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)]
        for name, layer in adapted:
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, layer.get_base_layer())
        if adapted:
            del module.peft_config
            module._hf_peft_config_loaded = False


@contextmanager
def adapter_off(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Sample from the base model inside the block."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [
        layer
        for module in (find_denoisers(pipeline) | find_text_encoders(pipeline)).values()
        if ADAPTER in getattr(module, "peft_config", ())
        for layer in module.modules()
        if isinstance(layer, BaseTunerLayer)
    ]
    for layer in adapted:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in adapted:
            layer.enable_adapters(True)


def _add_lora(module: torch.nn.Module, settings: LoraSettings, targets: Sequence[str]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(targets))
    # What `add_adapter` does where a class has it; not every denoiser's does.
    inject_adapter_in_model(config, module, ADAPTER)
    module._hf_peft_config_loaded = True
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if parameter.requires_grad:
            # Adam's small steps are lost in half precision.
            parameter.data = parameter.data.float()


def _ending(module: torch.nn.Module, ending: str) -> list[torch.nn.Module]:
    return [layer for name, layer in _layers(module) if _ends(name, ending)]


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith("." + ending)


def _layers(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d):
            yield name, layer

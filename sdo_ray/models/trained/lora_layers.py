"""Put the layers of a LoRA into modules, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.trained import pissa
from sdo_ray.models.trained.layers import has_layer, layer_endings
from sdo_ray.models.trained.lora_settings import LoraSettings, peft_config
from sdo_ray.settings import Problem, SettingsError

ADAPTER = "aligned"
"""The adapter's name inside PEFT."""

LOADED = "_hf_peft_config_loaded"
"""The attribute by which diffusers knows that a model has adapters."""


def add_lora(module: torch.nn.Module, settings: LoraSettings, targets: Sequence[str]) -> None:
    """Add a trainable float32 adapter to the layers of a module whose names end with one of `targets`."""
    from peft import inject_adapter_in_model

    with quiet_libraries():
        # What `add_adapter` does where a class has it; not every denoiser's does.
        inject_adapter_in_model(peft_config(settings, module, targets), module, ADAPTER)
    setattr(module, LOADED, True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if parameter.requires_grad:
            # Adam's small steps are lost in half precision.
            parameter.data = parameter.data.float()
    if settings.init == "pissa":
        pissa.split_off(module, ADAPTER)


def add_to_text_encoders(text_encoders: Mapping[str, torch.nn.Module], settings: LoraSettings) -> None:
    """The same for those that have layers of the names in the settings; those of other architectures are left alone.

    Raises:
        SettingsError: one of the names is of no layer.
    """
    fitting = {
        name: targets
        for name, encoder in text_encoders.items()
        if (targets := [t for t in settings.text_encoder_targets if has_layer(encoder, t)])
    }
    if unmatched := set(settings.text_encoder_targets) - {t for targets in fitting.values() for t in targets}:
        endings = sorted({ending for encoder in text_encoders.values() for ending in layer_endings(encoder)})
        raise SettingsError(
            Problem(
                "lora.text_encoder_targets",
                f"no linear layer of a text encoder ends with {', '.join(sorted(unmatched))}",
                f"their layers end with {', '.join(endings) or 'nothing: there are none'}",
                "choose among them",
            )
        )
    for name, targets in fitting.items():
        add_lora(text_encoders[name], settings, targets)


def adapted_layers(modules: Mapping[str, torch.nn.Module]) -> list[str]:
    """The names of the layers that have an adapter, with their component's in front."""
    from peft.tuners.lora import LoraLayer

    return [
        f"{component}.{name}"
        for component, module in modules.items()
        for name, layer in module.named_modules()
        if isinstance(layer, LoraLayer)
    ]

"""What a run trains in a model: an adapter, DiffFit's biases and scales, or the whole denoiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sdo_ray.backprop.denoisers import denoiser_names
from sdo_ray.models.adapter import attach_lora, attach_text_lora, initial_lora
from sdo_ray.models.denoisers import TEXT_ENCODERS, load_denoisers
from sdo_ray.models.diffit import attach_diffit
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.settings import ModelSettings


def attach(components: Mapping[str, object], model: ModelSettings) -> dict[str, torch.nn.Module]:
    """Make trainable, in float32, what `model.train` says; the images stay as they were.

    Args:
        components: a frozen pipeline's, by name.
        model: what to train.

    Returns:
        The denoisers, and the text encoders where they are trained too, by component name.

    Raises:
        SettingsError: no layer's name ends with one of the settings' endings.
    """
    modules = {name: part for name, part in components.items() if isinstance(part, torch.nn.Module)}
    denoisers = {name: modules[name] for name in denoiser_names(modules)}
    text_encoders = {name: modules[name] for name in TEXT_ENCODERS if name in modules}
    match model.train:
        case "lora":
            attach_lora(denoisers, model.lora)
            if model.lora.text_encoder_targets:
                attach_text_lora(text_encoders, model.lora)
                return denoisers | text_encoders
        case "diffit":
            attach_diffit(denoisers, model.diffit)
        case "full":
            for denoiser in denoisers.values():
                # Adam's small steps are lost in half precision.
                denoiser.float().requires_grad_(True)
    return denoisers


def initial_policy(model: ModelSettings, seed: int) -> dict[str, torch.Tensor]:
    """Policy version 0: the base model, in terms of what is trained.

    Args:
        model: base, and what is trained; a LoRA needs the base's shapes alone, the others read its denoiser's weights.
        seed: fixes a LoRA's factor A.

    Returns:
        Name -> float32 tensor on the CPU, named as in `trained_parameters`.

    Raises:
        SettingsError: the base cannot be read, or no layer's name ends with one of the settings' endings.
    """
    if model.train == "lora":
        return initial_lora(model.base, model.lora, seed)
    trained = trained_parameters(attach(load_denoisers(model.base, model.dtype), model))
    return {name: parameter.detach() for name, parameter in trained.items()}

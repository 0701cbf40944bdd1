"""The policy: what a run trains in a model, of whichever kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from sdo_ray.models.load import load_pipeline
from sdo_ray.models.precision import computing_type
from sdo_ray.models.settings import ModelSettings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def load_model(model: ModelSettings, device: str = "cpu") -> DiffusionPipeline:
    """The base model, frozen; see `sdo_ray.models.load.load_pipeline`."""
    return load_pipeline(model.reference, model.dtype, device, model.dtypes, model.quantize)


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
    return model.kind.attach(components, model.kind_settings)


def attach_working_copy(components: Mapping[str, object], model: ModelSettings) -> dict[str, torch.nn.Module]:
    """As `attach`, with what is trained of the type of the weights around it: for whoever makes no steps with it.

    So an adapter samples as it will where it is used, and no autocast is needed.
    """
    parts = {name: part for name, part in components.items() if isinstance(part, torch.nn.Module)}
    types = {p: p.dtype for part in parts.values() for p in part.parameters()}
    usual = {name: computing_type(part) for name, part in parts.items()}
    trained = attach(components, model)
    for name, module in trained.items():
        for parameter in module.parameters():
            if (own := types.get(parameter, usual[name])) not in (parameter.dtype, None):
                parameter.data = parameter.data.to(own)
    return trained


def initial_policy(model: ModelSettings, seed: int) -> dict[str, torch.Tensor]:
    """Policy version 0: the base model, in terms of what is trained.

    Args:
        model: base, and what is trained; most LoRAs need the base's shapes alone, the others read its weights.
        seed: fixes a LoRA's factor A.

    Returns:
        Name -> float32 tensor on the CPU, named as in `trained_parameters`.

    Raises:
        SettingsError: the base cannot be read, or no layer's name ends with one of the settings' endings.
    """
    return model.kind.initial(model.reference, model.dtype, model.kind_settings, seed, model.dtypes)

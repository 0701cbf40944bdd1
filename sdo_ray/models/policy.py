"""The policy: what a run trains in a model, of whichever kind."""

from __future__ import annotations

from collections.abc import Mapping

import torch

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
    return model.kind.attach(components, model.kind_settings)


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
    return model.kind.initial(model.reference, model.dtype, model.kind_settings, seed)

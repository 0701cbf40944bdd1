"""Hand a trained model out in the formats of plain diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from sdo_ray.models.load import ZOO, load_pipeline
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import attach, load_model
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.settings import ModelSettings

ADAPTER, BASE, MODEL = "adapter", "base_model", "model"
"""Names of the directories: an adapter on the denoiser and, beside it, the base it needs; or a complete model."""


def product(model: ModelSettings) -> str:
    """Which of the directories holds what was trained: an adapter's file where diffusers reads one, else all of it.

    Raises:
        SettingsError: the base has no denoiser, or its configuration cannot be read.
    """
    return MODEL if model.kind.adapter_writer(model.reference, model.kind_settings) is None else ADAPTER


def export_model(directory: Path, model: ModelSettings, weights: Mapping[str, torch.Tensor]) -> str | None:
    """Write what was trained, and a zoo model's whole pipeline, which nobody could load from elsewhere.

    Args:
        directory: where to. Gets `ADAPTER`, for `load_lora_weights`, and perhaps `BASE`, for `from_pretrained`; or else
            `MODEL`, for `from_pretrained`, with what was trained in float32.
        model: the base, and what was trained.
        weights: the policy, named as in `trained_parameters`.

    Returns:
        `BASE` if it was written, else None.
    """
    if (write := model.kind.adapter_writer(model.reference, model.kind_settings)) is not None:
        write(weights, directory / ADAPTER)
        if not model.base.startswith(ZOO):
            return None
        with quiet_libraries():
            load_pipeline(model.reference).save_pretrained(directory / BASE)
        return BASE
    pipeline = load_model(model.unrounded)
    trained = attach(pipeline.components, model)
    set_parameters(trained, weights)
    model.kind.merge(trained)
    with quiet_libraries():
        pipeline.save_pretrained(directory / MODEL)
    return None

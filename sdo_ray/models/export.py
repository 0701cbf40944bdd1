"""Hand a trained model out in the formats of plain diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from sdo_ray.models.adapter import merge_lora
from sdo_ray.models.adapter_file import export_adapter, has_adapter_file
from sdo_ray.models.diffit import merge_diffit
from sdo_ray.models.load import ZOO, load_pipeline
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.trained import attach

ADAPTER, BASE, MODEL = "adapter", "base_model", "model"
"""Names of the directories: a LoRA on the denoiser and, beside it, the base it needs; or a complete model."""


def product(model: ModelSettings) -> str:
    """Which of the directories holds what was trained: a LoRA file where diffusers can read one, else all of it.

    Raises:
        SettingsError: the base has no denoiser, or its configuration cannot be read.
    """
    on_denoisers = model.train == "lora" and not model.lora.text_encoder_targets
    return ADAPTER if on_denoisers and has_adapter_file(model.base) else MODEL


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
    if product(model) == ADAPTER:
        export_adapter(model.base, model.lora, weights, directory / ADAPTER)
        if not model.base.startswith(ZOO):
            return None
        with quiet_libraries():
            load_pipeline(model.base).save_pretrained(directory / BASE)
        return BASE
    pipeline = load_pipeline(model.base, model.dtype)
    trained = attach(pipeline.components, model)
    set_parameters(trained, weights)
    merge_lora(trained)
    merge_diffit(trained)
    with quiet_libraries():
        pipeline.save_pretrained(directory / MODEL)
    return None

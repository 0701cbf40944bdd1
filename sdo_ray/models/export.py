"""Hand a trained model out in the formats of plain diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from sdo_ray.models.adapter_file import export_adapter
from sdo_ray.models.load import ZOO, load_pipeline
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.settings import ModelSettings

ADAPTER, BASE = "adapter", "base_model"
"""Names of the two directories."""


def export_model(directory: Path, model: ModelSettings, weights: Mapping[str, torch.Tensor]) -> str | None:
    """Write the adapter, and a zoo model's whole pipeline, which nobody could load from elsewhere.

    Args:
        directory: where to; gets `ADAPTER`, for `load_lora_weights`, and perhaps `BASE`, for `from_pretrained`.
        model: base and adapter.
        weights: of the adapter.

    Returns:
        `BASE` if it was written, else None.
    """
    export_adapter(model.base, model.lora, weights, directory / ADAPTER)
    if not model.base.startswith(ZOO):
        return None
    pipeline = load_pipeline(model.base)
    with quiet_libraries():
        pipeline.save_pretrained(directory / BASE)
    return BASE

"""Hand a trained model out in the formats of plain diffusers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from sdo_ray.models.adapter_file import export_adapter
from sdo_ray.models.load import ZOO, load_pipeline
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.settings import ModelSettings
from sdo_ray.storage import RunDirectory


def export_model(run: RunDirectory, model: ModelSettings, weights: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    """Write the adapter, and a zoo model's whole pipeline, to the run's directory.

    Args:
        run: where to.
        model: base and adapter.
        weights: of the adapter.

    Returns:
        Where `DiffusionPipeline.from_pretrained` loads the base from, and where `load_lora_weights` loads the adapter.
    """
    base = model.base
    with tempfile.TemporaryDirectory() as temporary:
        export_adapter(model.base, model.lora, weights, Path(temporary))
        adapter = run.copy_in(Path(temporary), "adapter")
    if model.base.startswith(ZOO):
        with tempfile.TemporaryDirectory() as temporary:
            pipeline = load_pipeline(model.base)
            with quiet_libraries():
                pipeline.save_pretrained(temporary)
            base = run.copy_in(Path(temporary), "base_model")
    return base, adapter

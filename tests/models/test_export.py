"""What a run hands out."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from sdo_ray.models.export import ADAPTER, BASE, export_model
from sdo_ray.models.settings import ModelSettings
from tests.models.adapters import LORA, trained_weights


def test_a_base_that_others_can_load_is_only_named(tiny_base: Path, tmp_path: Path) -> None:
    model = ModelSettings(base=str(tiny_base), lora=LORA)
    assert export_model(tmp_path, model, trained_weights(tiny_base)) is None
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")] == [
        "adapter/pytorch_lora_weights.safetensors"
    ]


def test_a_zoo_model_is_handed_out_whole(tmp_path: Path) -> None:
    model = ModelSettings(base="zoo://emoji", lora=LORA)
    assert export_model(tmp_path, model, trained_weights("zoo://emoji")) == BASE
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / BASE, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path / ADAPTER)
    images = pipeline("apple", num_inference_steps=2, output_type="pt").images
    assert torch.isfinite(images).all()

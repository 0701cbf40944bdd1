"""Tiny pipelines of the architectures that LoRAs are exported for, with adapters on them."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from sdo_ray.models.adapter_file import FILE
from sdo_ray.models.export import ADAPTER, export_model
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.trained.lora import LoraSettings
from tests.backprop.matrix.assemble import STEPS, assemble, inputs
from tests.backprop.matrix.cases import CASES
from tests.backprop.matrix.parts import part
from tests.models.adapters import trained_weights

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
MODELS: dict[str, tuple[str, list[str], list[str]]] = {
    "sd15": ("StableDiffusion", [*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "conv1"], TEXT),
    "sdxl": (
        "StableDiffusionXL",
        [*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_out", "conv1", "conv2", "time_emb_proj", "conv_shortcut"],
        TEXT,
    ),
    "sd3": ("StableDiffusion3", [*ATTENTION, "add_q_proj", "add_v_proj", "ff.net.2", "ff_context.net.0.proj"], []),
    "flux": (
        "Flux",
        ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_v", "add_k_proj", "ff.net.2"],
        TEXT,
    ),
    "flux2": (
        "Flux2Klein",
        ["to_q", "to_v", "to_out.0", "to_add_out", "to_qkv_mlp_proj", "ff.linear_in", "ff_context.linear_out"],
        [],
    ),
    "qwen": ("QwenImage", [*ATTENTION, "add_q_proj", "to_add_out", "img_mlp.net.0.proj", "txt_mlp.net.2"], []),
    "wan": ("Wan", [*ATTENTION, "ffn.net.0.proj", "ffn.net.2"], []),
    "ltx": ("LTX", [*ATTENTION, "ff.net.0.proj", "ff.net.2"], []),
    "ltx2": ("LTX2", [*ATTENTION, "ff.net.0.proj", "audio_ff.net.2"], []),
}
"""Name -> class of the pipeline without its "Pipeline", layers of the denoiser, layers of the text encoders."""

PARTS = {
    "sd3": {"transformer": lambda: part("SD3Transformer2DModel", num_layers=2)},
    "wan": {"transformer_2": None, "boundary_ratio": None},
}
"""Parts that differ from those of the same pipelines in other tests: SD3's last block has half of the layers."""


def save_base(name: str, directory: Path) -> None:
    """The pipeline, with random weights, in diffusers format."""
    cls = MODELS[name][0]
    assemble(f"{cls}Pipeline", CASES[cls].parts | PARTS.get(name, {})).save_pretrained(directory)


def adapted(name: str, base: Path, directory: Path, text: bool = True, **kind: Any) -> Path:
    """An adapter as a run hands it out, with factors away from zero and alpha three times the rank; its file."""
    _, targets, text_targets = MODELS[name]
    lora = LoraSettings(rank=2, alpha=6.0, targets=targets, text_encoder_targets=text_targets if text else [], **kind)
    export_model(directory, ModelSettings(base=str(base), lora=lora), trained_weights(base, lora))
    return directory / ADAPTER / FILE


def draw(pipeline: Any, name: str) -> torch.Tensor:
    """Images of a fixed call."""
    pipeline.set_progress_bar_config(disable=True)
    call = inputs(pipeline, CASES[MODELS[name][0]].call)
    assert call["num_inference_steps"] == STEPS
    with torch.no_grad():
        return torch.as_tensor(pipeline(generator=torch.Generator().manual_seed(0), **call)[0])


def plain(base: Path) -> Any:
    """The pipeline of plain diffusers, which has to be told of parts that a model lacks."""
    index = json.loads((base / "model_index.json").read_text())
    absent = {name: None for name, entry in index.items() if entry == [None, None]}
    return DiffusionPipeline.from_pretrained(base, local_files_only=True, **absent)

"""Tiny CLIP and SigLIP models as folders in the hub's layout, and the rewards that rest on them."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from rewards.hpsv2 import Hpsv2

from .open_clip import to_open_clip
from .weights import filled
from .words import save_clip, save_letters

SIDE, WIDTH = 16, 8
_LAYERS = {"hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_LAYERS, "image_size": SIDE, "patch_size": 4}


def save_clip_model(folder: Path, **changes: Any) -> Path:
    vocabulary = save_clip(folder)
    text = {**_LAYERS, "vocab_size": vocabulary, "eos_token_id": vocabulary - 1, "max_position_embeddings": 12}
    text |= {"bos_token_id": vocabulary - 2}
    config = CLIPConfig(vision_config=_VISION, text_config=text, projection_dim=WIDTH, **changes)
    filled(CLIPModel(config)).save_pretrained(folder)
    return folder


def save_siglip_model(folder: Path) -> Path:
    text = {**_LAYERS, "vocab_size": save_letters(folder), "max_position_embeddings": 12, "projection_size": WIDTH}
    text |= {"bos_token_id": 0, "eos_token_id": 0}
    filled(SiglipModel(SiglipConfig(vision_config=_VISION, text_config=text))).save_pretrained(folder)
    return folder


def save_head(file: Path, layers: list[str], sizes: list[int]) -> Path:
    """Linear layers of these sizes by these names, as a checkpoint of torch."""
    modules = [filled(torch.nn.Linear(a, b)) for a, b in pairwise(sizes)]
    tensors = {
        f"{layer}.{key}".lstrip("."): value
        for layer, module in zip(layers, modules, strict=True)
        for key, value in module.state_dict().items()
    }
    torch.save(tensors, file)
    return file


class TinyHpsv2(Hpsv2):
    """`Hpsv2` with a tiny architecture."""

    architecture: ClassVar[Mapping[str, Any]] = {
        "vision_config": {**_VISION, "hidden_act": "gelu"},
        "text_config": {
            **_LAYERS,
            "hidden_act": "gelu",
            "vocab_size": 54,
            "eos_token_id": 53,
            "max_position_embeddings": 12,
        },
        "projection_dim": WIDTH,
    }


def save_hpsv2(folder: Path) -> Path:
    save_clip(folder)
    model = filled(CLIPModel(CLIPConfig(**TinyHpsv2.architecture)))
    torch.save({"epoch": 1, "state_dict": to_open_clip(model.state_dict())}, folder / "HPS_v2.1_compressed.pt")
    return folder

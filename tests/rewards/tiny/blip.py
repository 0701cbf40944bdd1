"""A tiny BLIP with a head, as checkpoints by its authors' names: the other direction of `rewards.towers.blip`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rewards.cycle_reward import CycleReward, make_head
from rewards.image_reward import ImageReward
from rewards.towers.blip import Blip

from .clip import save_head
from .weights import filled
from .words import save_letters

WIDTH = 8
_LAYERS = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


class TinyBlip(Blip):
    VISION: ClassVar[Mapping[str, Any]] = {**Blip.VISION, **_LAYERS, "image_size": 16, "patch_size": 4}
    TEXT: ClassVar[Mapping[str, Any]] = {**Blip.TEXT, **_LAYERS, "vocab_size": 28, "encoder_hidden_size": WIDTH}

    def __init__(self) -> None:
        super().__init__(self.VISION, self.TEXT)


class TinyImageReward(ImageReward):
    network = TinyBlip


class TinyCycleReward(CycleReward):
    network = TinyBlip


def save_image_reward(folder: Path) -> Path:
    save_letters(folder)
    head = folder / "head.pth"
    sizes = [WIDTH, 1024, 128, 64, 16, 1]
    save_head(head, [f"mlp.layers.{i}" for i in (0, 2, 4, 6, 7)], sizes)
    torch.save(
        to_blip(filled(TinyBlip()).state_dict()) | torch.load(head, weights_only=True), folder / "ImageReward.pt"
    )
    return folder


def save_cycle_reward(folder: Path) -> Path:
    save_letters(folder)
    head = {f"mlp.layers.{key}": tensor for key, tensor in filled(make_head(WIDTH)).state_dict().items()}
    save_file(to_blip(filled(TinyBlip()).state_dict()) | head, folder / "model.safetensors")
    return folder


def to_blip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names of BLIP's authors, with the constants and projections that their checkpoints have beside."""
    found = {"blip.text_encoder.embeddings.position_ids": torch.arange(9)[None]}
    for part in ("vision_proj", "text_proj"):
        found |= {f"blip.{part}.{key}": value for key, value in nn.Linear(WIDTH, 4).state_dict().items()}
    for key, tensor in tensors.items():
        found[_authors_name(key)] = tensor
    return found


def _authors_name(key: str) -> str:
    if key.startswith("text."):
        return f"blip.text_encoder.{key.removeprefix('text.')}"
    name = key.removeprefix("vision.")
    for ours, theirs in (
        ("embeddings.class_embedding", "cls_token"),
        ("embeddings.position_embedding", "pos_embed"),
        ("embeddings.patch_embedding", "patch_embed.proj"),
        ("post_layernorm", "norm"),
        ("encoder.layers", "blocks"),
        ("layer_norm", "norm"),
        ("self_attn.qkv", "attn.qkv"),
        ("self_attn.projection", "attn.proj"),
    ):
        name = name.replace(ours, theirs)
    return f"blip.visual_encoder.{name}"

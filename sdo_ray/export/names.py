"""What the layers of a model are called where it was published, which is how other programs name them in a LoRA.

A published layer may be several of diffusers', one after another along its output: `qkv` is to_q, to_k and to_v.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Published:
    """A layer of the published model."""

    name: str
    """Dotted."""
    parts: tuple[str, ...]
    """The layers of diffusers that it is made of, in order."""


def published_layer(denoiser: torch.nn.Module, layer: str) -> Published | None:
    """Where a layer of a denoiser lies; None: no place is known that the readers of LoRAs agree about."""
    naming = NAMINGS.get(type(denoiser).__name__)
    return None if naming is None else naming(denoiser, layer)


def text_layer(layer: str) -> Published | None:
    """The same for a layer of a CLIP text encoder, in whose names transformers has `text_model` or not."""
    inner = layer.removeprefix("text_model.")
    if re.fullmatch(r"encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])", inner):
        return Published(f"text_model.{inner}", (layer,))
    return None


def _unet(unet: torch.nn.Module, layer: str) -> Published | None:
    """SD 1.x and 2.x keep the names of diffusers; SDXL has those of its own UNet."""
    config: Any = unet.config
    if config.addition_embed_type != "text_time":
        return Published(layer, (layer,))
    name = _sdxl_block(layer, config.layers_per_block)
    return None if name is None else Published(name, (layer,))


def _sdxl_block(layer: str, per_block: int) -> str | None:
    """A layer of SDXL's UNet, which numbers its blocks' layers through: `per_block` each, and one to another size."""
    match = re.fullmatch(
        r"(down|mid|up)_blocks?(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", layer
    )
    if match is None:
        return None
    side, number, kind, index, inner = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    if kind == "resnets":
        renamed = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1"}
        inner = (renamed | {"conv_shortcut": "skip_connection"}).get(inner, inner)
    place = 1 if kind == "attentions" else 0
    if side == "mid":
        return f"middle_block.{place or 2 * index}.{inner}"
    if kind == "downsamplers":
        return f"input_blocks.{(number + 1) * (per_block + 1)}.0.op"
    if side == "down":
        return f"input_blocks.{number * (per_block + 1) + index + 1}.{place}.{inner}"
    first = number * (per_block + 1)
    if kind == "upsamplers":
        return f"output_blocks.{first + per_block}.2.{inner}"
    return f"output_blocks.{first + index}.{place}.{inner}"


def _as_here(layer: str) -> Published | None:
    """The blocks of Qwen-Image, LTX-Video and LTX-2 were published with the names of diffusers."""
    return Published(layer, (layer,)) if layer.startswith("transformer_blocks.") else None


def _numbered(ours: str, theirs: str, layers: Mapping[str, tuple[str, ...]]) -> Callable[[str], Published | None]:
    """Names in numbered blocks: published name inside a block -> the names in diffusers."""
    of = {part: (name, parts) for name, parts in layers.items() for part in parts}

    def find(layer: str) -> Published | None:
        match = re.fullmatch(rf"{ours}\.(\d+)\.(.+)", layer)
        if match is None or match[2] not in of:
            return None
        name, parts = of[match[2]]
        return Published(f"{theirs}.{match[1]}.{name}", tuple(f"{ours}.{match[1]}.{part}" for part in parts))

    return find


_ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v")
_ADDED = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")

_joint = _numbered(
    "transformer_blocks",
    "joint_blocks",
    {
        "x_block.attn.qkv": _ATTENTION,
        "x_block.attn.proj": ("attn.to_out.0",),
        "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
        "x_block.attn2.proj": ("attn2.to_out.0",),
        "x_block.mlp.fc1": ("ff.net.0.proj",),
        "x_block.mlp.fc2": ("ff.net.2",),
        "context_block.attn.qkv": _ADDED,
        "context_block.attn.proj": ("attn.to_add_out",),
        "context_block.mlp.fc1": ("ff_context.net.0.proj",),
        "context_block.mlp.fc2": ("ff_context.net.2",),
    },
)
_double = _numbered(
    "transformer_blocks",
    "double_blocks",
    {
        "img_attn.qkv": _ATTENTION,
        "img_attn.proj": ("attn.to_out.0",),
        "img_mlp.0": ("ff.net.0.proj",),
        "img_mlp.2": ("ff.net.2",),
        "img_mod.lin": ("norm1.linear",),
        "txt_attn.qkv": _ADDED,
        "txt_attn.proj": ("attn.to_add_out",),
        "txt_mlp.0": ("ff_context.net.0.proj",),
        "txt_mlp.2": ("ff_context.net.2",),
        "txt_mod.lin": ("norm1_context.linear",),
    },
)
_single = _numbered(
    "single_transformer_blocks",
    "single_blocks",
    {"linear1": (*_ATTENTION, "proj_mlp"), "linear2": ("proj_out",), "modulation.lin": ("norm.linear",)},
)
_double_2 = _numbered(
    "transformer_blocks",
    "double_blocks",
    {
        "img_attn.qkv": _ATTENTION,
        "img_attn.proj": ("attn.to_out.0",),
        "img_mlp.0": ("ff.linear_in",),
        "img_mlp.2": ("ff.linear_out",),
        "txt_attn.qkv": _ADDED,
        "txt_attn.proj": ("attn.to_add_out",),
        "txt_mlp.0": ("ff_context.linear_in",),
        "txt_mlp.2": ("ff_context.linear_out",),
    },
)
_single_2 = _numbered(
    "single_transformer_blocks",
    "single_blocks",
    {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)},
)
_wan = _numbered(
    "blocks",
    "blocks",
    {
        **{
            f"{theirs}.{o}": (f"{ours}.{name}",)
            for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
            for o, name in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
        },
        "cross_attn.k_img": ("attn2.add_k_proj",),
        "cross_attn.v_img": ("attn2.add_v_proj",),
        "ffn.0": ("ffn.net.0.proj",),
        "ffn.2": ("ffn.net.2",),
    },
)

NAMINGS: Mapping[str, Callable[[torch.nn.Module, str], Published | None]] = {
    "UNet2DConditionModel": _unet,
    "SD3Transformer2DModel": lambda _, layer: _joint(layer),
    "FluxTransformer2DModel": lambda _, layer: _double(layer) or _single(layer),
    "Flux2Transformer2DModel": lambda _, layer: _double_2(layer) or _single_2(layer),
    "QwenImageTransformer2DModel": lambda _, layer: _as_here(layer),
    "LTXVideoTransformer3DModel": lambda _, layer: _as_here(layer),
    "LTX2VideoTransformer3DModel": lambda _, layer: _as_here(layer),
    "WanTransformer3DModel": lambda _, layer: _wan(layer),
}
"""By the class of the denoiser."""

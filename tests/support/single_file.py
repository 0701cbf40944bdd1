"""A tiny Stable Diffusion as one file, with the names that A1111 and ComfyUI read: what diffusers converts from."""

import re
from typing import Any

import torch
from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING

from sdo_ray.export.names import _sdxl_block

NORMS = {"in_layers.0": "norm1", "out_layers.0": "norm2"}


def checkpoint(pipeline: Any) -> dict[str, torch.Tensor]:
    """Name -> tensor."""
    found = {f"model.diffusion_model.{_of_unet(pipeline, name)}": w for name, w in pipeline.unet.state_dict().items()}
    for name, weight in pipeline.vae.state_dict().items():
        linear = re.search(r"attentions\.0\.(to_|.*query|.*key|.*value|.*proj_attn).*weight", name)
        found[f"first_stage_model.{_of_vae(pipeline, name)}"] = weight[..., None, None] if linear else weight
    for name, weight in pipeline.text_encoder.state_dict().items():
        found[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = weight
    return {name: weight.contiguous() for name, weight in found.items()}


def _of_unet(pipeline: Any, name: str) -> str:
    top = DIFFUSERS_TO_LDM_MAPPING["unet"]["layers"]
    if name in top:
        return str(top[name])
    layer, _, kind = name.rpartition(".")
    named = _sdxl_block(layer, pipeline.unet.config.layers_per_block)
    assert named is not None
    return "{}.{}".format(re.sub("norm[12]$", lambda m: _norm(named, m[0]), named), kind)


def _norm(named: str, norm: str) -> str:
    """Norms of transformer blocks keep their names."""
    return norm if "transformer_blocks" in named else {new: old for old, new in NORMS.items()}[norm]


def _of_vae(pipeline: Any, name: str) -> str:
    top = DIFFUSERS_TO_LDM_MAPPING["vae"]
    if name in top:
        return str(top[name])
    last = len(pipeline.vae.config.up_block_types) - 1
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for ours, theirs in names.items():
        name = name.replace(f"mid_block.attentions.0.{ours}", f"mid.attn_1.{theirs}")
    return name.replace("conv_shortcut", "nin_shortcut")

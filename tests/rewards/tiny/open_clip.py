"""open_clip's names and layout for the weights of a `CLIPModel`: the other direction of `rewards.towers.open_clip`."""

from collections.abc import Mapping

import torch
from torch import Tensor


def to_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    vision, text = "vision_model", "text_model"
    found = {
        "visual.class_embedding": tensors[f"{vision}.embeddings.class_embedding"],
        "visual.positional_embedding": tensors[f"{vision}.embeddings.position_embedding.weight"],
        "visual.conv1.weight": tensors[f"{vision}.embeddings.patch_embedding.weight"],
        "visual.proj": tensors["visual_projection.weight"].T,
        "text_projection": tensors["text_projection.weight"].T,
        "token_embedding.weight": tensors[f"{text}.embeddings.token_embedding.weight"],
        "positional_embedding": tensors[f"{text}.embeddings.position_embedding.weight"],
        "logit_scale": tensors["logit_scale"],
    }
    for kind in ("weight", "bias"):
        found[f"visual.ln_pre.{kind}"] = tensors[f"{vision}.pre_layrnorm.{kind}"]
        found[f"visual.ln_post.{kind}"] = tensors[f"{vision}.post_layernorm.{kind}"]
        found[f"ln_final.{kind}"] = tensors[f"{text}.final_layer_norm.{kind}"]
        for tower, prefix in ((vision, "visual.transformer"), (text, "transformer")):
            for i in range(_layers(tensors, tower)):
                layer, block = f"{tower}.encoder.layers.{i}", f"{prefix}.resblocks.{i}"
                found[f"{block}.ln_1.{kind}"] = tensors[f"{layer}.layer_norm1.{kind}"]
                found[f"{block}.ln_2.{kind}"] = tensors[f"{layer}.layer_norm2.{kind}"]
                found[f"{block}.mlp.c_fc.{kind}"] = tensors[f"{layer}.mlp.fc1.{kind}"]
                found[f"{block}.mlp.c_proj.{kind}"] = tensors[f"{layer}.mlp.fc2.{kind}"]
                found[f"{block}.attn.out_proj.{kind}"] = tensors[f"{layer}.self_attn.out_proj.{kind}"]
                found[f"{block}.attn.in_proj_{kind}"] = torch.cat(
                    [tensors[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                )
    return found


def _layers(tensors: Mapping[str, Tensor], tower: str) -> int:
    start = f"{tower}.encoder.layers."
    return 1 + max(int(key.removeprefix(start).partition(".")[0]) for key in tensors if key.startswith(start))

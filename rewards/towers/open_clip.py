"""CLIP checkpoints with the names of open_clip, for the `CLIPModel` of transformers.

visual.*, transformer.resblocks.i.*, ...   686 tensors of a ViT-H-14
vision_model.*, text_model.*, ...          910: query, key and value are one tensor there and three here
"""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from rewards.towers.checkpoint import CONSTANTS

_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # so spelt in transformers
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def from_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by the names of `CLIPModel`.

    Args:
        tensors: by open_clip's names; constants are left out.

    Returns:
        By transformers' names. Shapes are not checked; loading does that.

    Raises:
        ValueError: a name that open_clip does not have.
    """
    return dict(
        pair for key, tensor in tensors.items() if not key.endswith(CONSTANTS) for pair in _renamed(key, tensor)
    )


def _renamed(key: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    block = _BLOCK.fullmatch(key)
    if key in _NAMES:
        yield _NAMES[key], tensor
    elif key in _TRANSPOSED:
        yield _TRANSPOSED[key], tensor.T.contiguous()
    elif block is None:
        raise ValueError(f"this is no checkpoint of open_clip's CLIP: it has {key!r}")
    else:
        visual, number, rest = block.groups()
        layer = f"{'vision' if visual else 'text'}_model.encoder.layers.{number}"
        name, _, kind = rest.rpartition(".")
        if name in _IN_BLOCK:
            yield f"{layer}.{_IN_BLOCK[name]}.{kind}", tensor
        elif rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{layer}.self_attn.{part}_proj.{rest.rpartition('_')[2]}", rows
        else:
            raise ValueError(f"this is no checkpoint of open_clip's CLIP: it has {key!r}")

"""The names and shapes of open_clip's ViT-H-14, written down here, become exactly those of `CLIPModel`."""

import pytest
import torch
from accelerate import init_empty_weights
from transformers import CLIPConfig, CLIPModel

from rewards.hpsv2 import Hpsv2
from rewards.towers.open_clip import from_open_clip

from ..tiny.clip import TinyHpsv2
from ..tiny.open_clip import to_open_clip
from ..tiny.weights import filled


def block(name, width, hidden):
    return {
        f"{name}.ln_1.weight": (width,),
        f"{name}.ln_1.bias": (width,),
        f"{name}.attn.in_proj_weight": (3 * width, width),
        f"{name}.attn.in_proj_bias": (3 * width,),
        f"{name}.attn.out_proj.weight": (width, width),
        f"{name}.attn.out_proj.bias": (width,),
        f"{name}.ln_2.weight": (width,),
        f"{name}.ln_2.bias": (width,),
        f"{name}.mlp.c_fc.weight": (hidden, width),
        f"{name}.mlp.c_fc.bias": (hidden,),
        f"{name}.mlp.c_proj.weight": (width, hidden),
        f"{name}.mlp.c_proj.bias": (width,),
    }


def vit_h_14():
    shapes = {
        "positional_embedding": (77, 1024),
        "text_projection": (1024, 1024),
        "logit_scale": (),
        "visual.class_embedding": (1280,),
        "visual.positional_embedding": (257, 1280),
        "visual.proj": (1280, 1024),
        "visual.conv1.weight": (1280, 3, 14, 14),
        "visual.ln_pre.weight": (1280,),
        "visual.ln_pre.bias": (1280,),
        "visual.ln_post.weight": (1280,),
        "visual.ln_post.bias": (1280,),
        "token_embedding.weight": (49408, 1024),
        "ln_final.weight": (1024,),
        "ln_final.bias": (1024,),
    }
    for i in range(32):
        shapes |= block(f"visual.transformer.resblocks.{i}", 1280, 5120)
    for i in range(24):
        shapes |= block(f"transformer.resblocks.{i}", 1024, 4096)
    return shapes


def test_the_published_layout_is_that_of_the_model():
    published = vit_h_14()
    assert len(published) == 686
    with init_empty_weights():
        model = CLIPModel(CLIPConfig(**Hpsv2.architecture))
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert len(wanted) == 910
    assert sum(parameter.numel() for parameter in model.parameters()) == 986_109_441
    found = from_open_clip({name: torch.empty(shape, device="meta") for name, shape in published.items()})
    assert {name: tensor.shape for name, tensor in found.items()} == wanted


def test_values_keep_their_places():
    tensors = filled(CLIPModel(CLIPConfig(**TinyHpsv2.architecture))).state_dict()
    found = from_open_clip(to_open_clip(tensors) | {"attn_mask": torch.zeros(12, 12)})
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("name", ["visual.head.weight", "transformer.resblocks.0.attn.qkv.weight"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=f"no checkpoint of open_clip's CLIP: it has '{name}'"):
        from_open_clip({name: torch.zeros(1)})

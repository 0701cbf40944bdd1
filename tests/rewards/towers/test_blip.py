"""The names and shapes of BLIP's authors for ImageReward and CycleReward, written down here, become those of `Blip`."""

import pytest
import torch
from accelerate import init_empty_weights

from rewards.cycle_reward import make_head
from rewards.towers.blip import Blip, from_blip

from ..tiny.blip import TinyBlip, to_blip
from ..tiny.weights import filled


def linear(name, out, into):
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def published():
    eye, text = "blip.visual_encoder", "blip.text_encoder"
    shapes = {
        f"{eye}.cls_token": (1, 1, 1024),
        f"{eye}.pos_embed": (1, 197, 1024),
        f"{eye}.patch_embed.proj.weight": (1024, 3, 16, 16),
        f"{eye}.patch_embed.proj.bias": (1024,),
        **norm(f"{eye}.norm", 1024),
        f"{text}.embeddings.position_ids": (1, 512),
        f"{text}.embeddings.word_embeddings.weight": (30524, 768),
        f"{text}.embeddings.position_embeddings.weight": (512, 768),
        **norm(f"{text}.embeddings.LayerNorm", 768),
        **linear("blip.vision_proj", 256, 1024),
        **linear("blip.text_proj", 256, 768),
    }
    for i in range(24):
        block = f"{eye}.blocks.{i}"
        shapes |= norm(f"{block}.norm1", 1024) | norm(f"{block}.norm2", 1024)
        shapes |= linear(f"{block}.attn.qkv", 3072, 1024) | linear(f"{block}.attn.proj", 1024, 1024)
        shapes |= linear(f"{block}.mlp.fc1", 4096, 1024) | linear(f"{block}.mlp.fc2", 1024, 4096)
    for i in range(12):
        layer = f"{text}.encoder.layer.{i}"
        for kind, into in (("attention", 768), ("crossattention", 1024)):
            shapes |= linear(f"{layer}.{kind}.self.query", 768, 768)
            shapes |= linear(f"{layer}.{kind}.self.key", 768, into) | linear(f"{layer}.{kind}.self.value", 768, into)
            shapes |= linear(f"{layer}.{kind}.output.dense", 768, 768) | norm(f"{layer}.{kind}.output.LayerNorm", 768)
        shapes |= linear(f"{layer}.intermediate.dense", 3072, 768) | linear(f"{layer}.output.dense", 768, 3072)
        shapes |= norm(f"{layer}.output.LayerNorm", 768)
    return shapes


def test_the_published_layout_is_that_of_the_model():
    with init_empty_weights():
        model = Blip()
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = from_blip({name: torch.empty(shape, device="meta") for name, shape in published().items()})
    assert {name: tensor.shape for name, tensor in found.items()} == wanted
    assert len(wanted) == 610


def test_values_keep_their_places():
    tensors = filled(TinyBlip()).state_dict()
    found = from_blip(to_blip(tensors))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("name", ["blip.visual_encoder.blocks.0.attn.q.weight", "blip.decoder.weight"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=f"no checkpoint of BLIP: it has '{name}'"):
        from_blip({name: torch.zeros(1)})


def test_every_word_sees_every_other_and_padding_is_not_seen():
    model = filled(TinyBlip())
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    words = torch.tensor([[3, 4, 5, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    with torch.no_grad():
        whole = model(pixels, words, mask)
        torch.testing.assert_close(model(pixels, words[:, :3], mask[:, :3]), whole)
        assert not torch.allclose(model(pixels, torch.tensor([[3, 4, 6, 0, 0]]), mask), whole, atol=1e-4)
        assert not torch.allclose(model(1 - pixels, words, mask), whole, atol=1e-4)


def test_the_head_of_cycle_reward_has_its_published_keys():
    shapes = {name: list(tensor.shape) for name, tensor in make_head(768).state_dict().items()}
    sizes = {0: [1024, 768], 2: [128, 1024], 4: [64, 128], 6: [16, 64], 8: [1, 16]}
    assert shapes == {f"{i}.weight": size for i, size in sizes.items()} | {
        f"{i}.bias": size[:1] for i, size in sizes.items()
    }

"""MPS's cross model: its published layout, and what its blocks compute against plain loops."""

import math

import pytest
import torch
from accelerate import init_empty_weights

from rewards.towers.cross import CrossModel, _attend, _Rotary, _split

from ..tiny.weights import filled


def test_the_published_layout():
    with init_empty_weights():
        model = CrossModel()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    expected = {}
    for i in range(4):
        across, among = f"layers.{i}.0.fn", f"layers.{i}.1.fn"
        for block in (across, among):
            expected |= {f"{block}.norm.weight": (1024,), f"{block}.norm.bias": (1024,)}
        expected |= {
            f"{across}.to_q.weight": (1024, 1024),
            f"{across}.to_kv.weight": (128, 1024),
            f"{across}.to_out.weight": (1024, 1024),
            f"{across}.ff.0.weight": (8192, 1024),
            f"{across}.ff.2.weight": (1024, 4096),
            f"{among}.rotary_emb.inv_freq": (32,),
            f"{among}.fused_attn_ff_proj.weight": (1024 + 64 + 64 + 8192, 1024),
            f"{among}.attn_out.weight": (1024, 1024),
            f"{among}.ff_out.1.weight": (1024, 4096),
        }
    assert shapes == expected


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def test_attention_is_that_of_plain_loops():
    q, k, v = draw(1, 3, 4), draw(1, 5, 2), draw(1, 5, 2).flip(1)
    visible = torch.tensor([[True, False, True, True, False]])
    found = _attend(_split(q, 2), k, v, visible[:, None, None])
    for n in range(3):
        for head in range(2):
            query = q[0, n, 2 * head : 2 * head + 2]
            weights = [math.exp(float(query @ k[0, j]) / math.sqrt(2)) * bool(visible[0, j]) for j in range(5)]
            mean = sum(weight * v[0, j] for j, weight in enumerate(weights)) / sum(weights)
            torch.testing.assert_close(found[0, n, 2 * head : 2 * head + 2], mean)


def test_what_is_not_visible_does_not_matter():
    model = filled(CrossModel(8, 2, 4, 2))
    x, text, visible = draw(1, 6, 8), draw(1, 5, 8), torch.tensor([[True, True, False, False, True]])
    other = text.clone()
    other[0, 2:4] += 7
    with torch.no_grad():
        assert torch.equal(model(x, text, visible), model(x, other, visible))
        assert not torch.allclose(model(x, text, ~visible), model(x, other, ~visible))


def test_rotary_products_depend_on_the_distance_alone():
    rotary = _Rotary(8)
    q, k = draw(8).expand(9, 8), draw(8).flip(0).expand(9, 8)
    products = rotary(q) @ rotary(k).T
    for distance in (1, 3):
        along = products.diagonal(distance)
        assert along.tolist() == pytest.approx([along[0].item()] * len(along), rel=1e-4)
    torch.testing.assert_close(products.diagonal(), (q * k).sum(-1))

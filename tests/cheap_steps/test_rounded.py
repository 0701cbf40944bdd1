"""Rounded weights are near, small, and follow what is trained; what is of low rank is not rounded."""

import importlib.util
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from sdo_ray.backprop import run_by
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.fast_copy import FastCopy
from sdo_ray.cheap_steps.low_rank import low_rank
from sdo_ray.cheap_steps.rounded import GROUP, round_weights
from sdo_ray.cheap_steps.settings import CopySettings
from sdo_ray.settings import SettingsError
from tests.backprop.tiny import seeded, stable_diffusion, stable_diffusion_3

needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
BITS = {"int8": 8, "int4": 4}


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.Conv1d(4, 5, 3, padding=1), nn.Linear(32, 8, bias=False)).requires_grad_(
        False
    )


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("to", ["int8", "int4"])
def test_no_weight_is_off_by_more_than_half_a_step(to: Any, rank: int) -> None:
    plain, rounded = layers(), layers()
    round_weights(rounded, to, rank)
    for before, after in zip(plain, rounded, strict=True):
        weight = before.weight.flatten(1)
        up, down = low_rank(weight, rank)
        rest = nn.functional.pad(weight - up @ down, (0, -weight.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
        step = rest.abs().amax(-1) / (2 ** (BITS[to] - 1) - 1)
        off = nn.functional.pad((after.weight.flatten(1) - weight).abs(), (0, -weight.shape[1] % GROUP))
        assert (off.unflatten(1, (-1, GROUP)).amax(-1) <= 0.5 * step + 1e-6).all()
        assert off.max() > 0


def test_four_bits_take_half_a_byte_and_a_scale() -> None:
    sizes = []
    for to in ("int8", "int4"):
        rounded = nn.Sequential(nn.Linear(256, 256, bias=False)).to(torch.bfloat16).requires_grad_(False)
        round_weights(rounded, to, 0)
        sizes.append(sum(p.nbytes for p in rounded.parameters()) / 256**2)
    assert sizes == [1 + 2 / GROUP, 0.5 + 2 / GROUP]


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_what_is_of_low_rank_is_not_rounded(to: Any) -> None:
    layer = nn.Sequential(nn.Linear(64, 48)).requires_grad_(False)
    small = layer[0].weight.clone()
    layer[0].weight += 3 * torch.randn(48, 2, generator=seeded(1)) @ torch.randn(2, 64, generator=seeded(2))
    weight, off = layer[0].weight.clone(), []
    for rank in (0, 2):
        rounded = nn.Sequential(nn.Linear(64, 48)).requires_grad_(False)
        rounded[0].weight.copy_(weight)
        round_weights(rounded, to, rank)
        off.append((rounded[0].weight - weight).norm() / small.norm())
    assert off[1] < 0.1 * off[0]


def test_a_low_rank_is_about_the_best_and_always_the_same() -> None:
    matrix = torch.randn(40, 60, generator=seeded(3), dtype=torch.float64)
    best = torch.linalg.svdvals(matrix)[8:].square().sum().sqrt()
    (up, down), (again, _) = low_rank(matrix, 8), low_rank(matrix, 8)
    assert up.shape == (40, 8)
    assert best <= (matrix - up @ down).norm() < 1.05 * best
    assert torch.equal(up, again)
    assert torch.allclose(torch.linalg.multi_dot(low_rank(matrix, 100)), matrix)


def rounded_layers(network: nn.Module) -> set[str]:
    return {path for path, layer in network.named_modules() if hasattr(layer, "parametrizations")}


@pytest.mark.parametrize("made", [stable_diffusion, stable_diffusion_3])
def test_layers_outside_blocks_stay_as_they_are(made: Any) -> None:
    pipe = made()
    name, denoiser = next((n, pipe.components[n]) for n in ("unet", "transformer") if n in pipe.components)
    rounded = rounded_layers(FastCopy(name, denoiser, CopySettings(quantize="int4")).module)
    assert rounded
    assert all(any(part.isdigit() for part in path.split(".")) for path in rounded)


def test_a_unets_shortcuts_and_projections_stay_as_they_are_also_when_the_copy_follows() -> None:
    pipe = stable_diffusion()
    pipe.unet.delete_adapters("default")
    fast = FastCopy("unet", pipe.unet.requires_grad_(True), CopySettings(quantize="int4"))
    kinds = ("conv_shortcut", "proj_in", "proj_out")
    kept = {path for path, _ in pipe.unet.named_modules() if path.endswith(kinds)}
    first = rounded_layers(fast.module)
    assert {path.rpartition(".")[2] for path in kept} == {*kinds}
    assert not kept & first
    with torch.no_grad():
        for p in pipe.unet.parameters():
            p.add_(0.1)
    fast.follow()
    assert rounded_layers(fast.module) == first
    for path in kept:
        assert torch.equal(fast.module.get_submodule(path).weight, pipe.unet.get_submodule(path).weight)


UNETS = {
    "the embedded model's": {
        "block_out_channels": (64, 128, 192),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
    },
    "Stable Diffusion 1.5's": {},
    "SDXL's": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    },
}


@pytest.mark.parametrize("config", UNETS.values(), ids=UNETS.keys())
def test_weights_that_share_a_scale_are_never_on_both_sides_of_a_skip_connection(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(attention_head_dim=8, cross_attention_dim=64, **config)
    before = unet.mid_block.resnets[-1].out_channels
    for resnet in (resnet for block in unet.up_blocks for resnet in block.resnets):
        assert resnet.conv1.in_channels > before
        assert before * resnet.conv1.weight[0, 0].numel() % GROUP == 0
        before = resnet.out_channels


WAYS = [
    ({"quantize": "int8"}, 0.03),
    ({"quantize": "int4", "low_rank": 4}, 0.2),
    ({"quantize": "int8", "dtype": "bfloat16"}, 0.04),
    pytest.param({"quantize": "int8-dynamic"}, 0.05, marks=needs_torchao),
]


@pytest.mark.parametrize(("how", "most"), WAYS)
def test_a_quantised_copy_is_near_and_follows(how: dict[str, Any], most: float) -> None:
    network = layers().requires_grad_(True)
    x = torch.randn(2, 4, 64, generator=seeded())
    fast = FastCopy("unet", network, CopySettings(**how))
    for step in range(3):
        fast.follow()
        off = (fast((x,), {}) - network(x)).norm() / network(x).norm()
        assert 0 < off < most
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.randn(p.shape, generator=seeded(step)))


@pytest.mark.parametrize(("how", "most"), WAYS)
def test_a_sampler_runs_on_it(how: dict[str, Any], most: float) -> None:
    pipe = stable_diffusion()
    runner = choose_runner(pipe, None, CopySettings(**how), 4)
    call: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 4, "output_type": "latent"}
    plain = pipe(**call, generator=seeded(1)).images
    with run_by(runner, pipe, 4):
        off = (pipe(**call, generator=seeded(1)).images - plain).norm() / plain.norm()
    assert 0 < off < most


def test_without_torchao_activations_are_not_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"fast_copy\.quantize: got 'int8-dynamic', which needs torchao"):
        choose_runner(stable_diffusion(), None, CopySettings(quantize="int8-dynamic"), 4)


def test_a_low_rank_of_nothing_rounded_is_refused() -> None:
    for quantize in (None, "int8-dynamic"):
        with pytest.raises(ValueError, match="it goes with int8 and int4"):
            CopySettings(quantize=quantize, low_rank=4)

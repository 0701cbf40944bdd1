"""Of a video whose reward looks at some frames, only those are decoded again, where the decoder makes them apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLMagvit

from rewards.frames import Frames
from sdo_ray.backprop import differentiable_sample, make_plan
from sdo_ray.backprop.decoder import decoded_again
from sdo_ray.rollout.preparation import set_decoding

from .decoded_twice import again, as_it_is, autoencoder, latents
from .matrix.assemble import assemble, inputs
from .matrix.cases import CASES
from .matrix.check import adapt
from .tiny import seeded


@contextmanager
def counted(decoder: torch.nn.Module) -> Iterator[list[int]]:
    """Rows of each of its calls with a graph."""
    rows: list[int] = []

    def count(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            rows.append(len(args[0]))

    handle = decoder.register_forward_pre_hook(count)
    try:
        yield rows
    finally:
        handle.remove()


def learned(name: str, again: bool, frames: Frames, **call: Any) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Videos, gradient, and the rows that were decoded with a graph."""
    pipe = assemble(f"{name}Pipeline", CASES[name].parts)
    trained = adapt(pipe)
    arguments = inputs(pipe, CASES[name].call | call)
    plan = make_plan("sdo", arguments["num_inference_steps"], draw="fixed", at=[1])
    torch.manual_seed(2)
    with counted(pipe.vae.decoder) as rows:
        videos = differentiable_sample(pipe, plan, decode_again=again, **arguments | {"generator": seeded(3)})
        seen = torch.stack([videos[:, f] for f in frames.places(videos.shape[1])])
        gradient = torch.autograd.grad((seen**2).mean(), trained, allow_unused=True)
    return videos.detach(), torch.cat([g.flatten() for g in gradient if g is not None]), rows


# Frames by themselves; chunks of two, whose frames know of one another; a causal autoencoder, all of whose frames do.
@pytest.mark.parametrize(
    ("name", "frames", "call", "expected"),
    [
        ("AnimateDiff", Frames("first"), {"num_frames": 6}, [1]),
        ("AnimateDiff", Frames(2), {"num_frames": 6}, [1, 1]),
        ("StableVideoDiffusion", Frames("first"), {"num_frames": 6}, [1, 2]),  # one by itself is no chunk
        ("Wan", Frames("first"), {"num_frames": 9}, [1] * 3),
    ],
)
def test_frames_without_a_gradient_are_not_decoded_again(
    name: str, frames: Frames, call: dict[str, Any], expected: list[int]
) -> None:
    videos, gradient, _ = learned(name, False, frames, **call)
    same_videos, same, rows = learned(name, True, frames, **call)
    assert torch.equal(videos, same_videos)
    assert gradient.norm() > 0
    assert (same - gradient).norm() <= 1e-4 * gradient.norm()
    assert rows == expected


RUNS = {"AutoencoderKLHunyuanVideo": 13, "AutoencoderKLLTXVideo": 9, "AutoencoderKLWan": 5, "AutoencoderKLCogVideoX": 6}
"""Frames of latents, of autoencoders that decode by runs of frames; the last two by causal ones."""


@pytest.mark.parametrize("name", RUNS)
def test_runs_without_a_gradient_are_not_decoded_again(name: str) -> None:
    vae = autoencoder(name)
    set_decoding(SimpleNamespace(components={"vae": vae}), "frames")
    z = latents(vae, RUNS[name], 4, 4)
    [expected] = torch.autograd.grad(vae.decode(z).sample[:, :, 0].square().sum(), z)
    with decoded_again(vae):
        video = vae.decode(z).sample
    with counted(vae.decoder) as rows:
        [gradient] = torch.autograd.grad(video[:, :, 0].square().sum(), z)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)
    assert len(rows) == 1


# Causal autoencoders: two hand on in lists that they overwrite, one by what it returns.
@pytest.mark.parametrize("name", ["AutoencoderKLWan", "AutoencoderKLQwenImage", "AutoencoderKLCogVideoX"])
def test_tiles_that_hand_on_frames_are_decoded_again_as_they_were(name: str) -> None:
    vae = autoencoder(name)
    z = latents(vae, 5, 6, 6)
    vae.enable_tiling(32, 32, *(() if "CogVideoX" in name else (24, 24)))
    whole, tiles = as_it_is(vae, z), again(vae, z)
    assert torch.equal(tiles.videos, whole.videos)
    torch.testing.assert_close(tiles.gradient, whole.gradient, rtol=1e-4, atol=1e-6)
    assert tiles.held < 0.5 * whole.held


class Derived(AutoencoderKLMagvit):
    """One of somebody's own."""


@pytest.mark.parametrize("kind", [AutoencoderKLMagvit, Derived])
def test_tiles_of_layers_that_remember_are_decoded_again_as_they_were(kind: type[AutoencoderKLMagvit]) -> None:
    vae = autoencoder("AutoencoderKLMagvit")
    vae.__class__ = kind
    vae.enable_tiling(16, 16, tile_sample_stride_height=12, tile_sample_stride_width=12)
    z = latents(vae, 2, 3, 3)
    [expected] = torch.autograd.grad(vae.decode(z).sample.square().sum(), z)
    with decoded_again(vae):
        video = vae.decode(z).sample
    [gradient] = torch.autograd.grad(video.square().sum(), z)
    torch.testing.assert_close(gradient, expected)

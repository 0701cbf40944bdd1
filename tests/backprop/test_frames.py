"""Autoencoders of videos that decode by runs of frames: the gradient of the whole, holding one run at a time."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sdo_ray.backprop.decoder import decoded_again
from sdo_ray.rollout.preparation import set_decoding
from sdo_ray.sizing.alive import Alive
from tests.backprop.matrix.parts import part

FRAMES = {"AutoencoderKLHunyuanVideo": 13, "AutoencoderKLMochi": 6, "AutoencoderKLLTXVideo": 9}
"""Frames of latents, more than a run has."""


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_held_a_run_at_a_time(name: str) -> None:
    torch.manual_seed(0)
    vae: Any = part(name).requires_grad_(False).eval()
    z = torch.randn(1, vae.config.latent_channels, FRAMES[name], 4, 4).requires_grad_()
    pipeline: Any = SimpleNamespace(components={"vae": vae})
    set_decoding(pipeline, "frames")
    assert vae.use_framewise_decoding
    with Alive() as whole:
        expected = vae.decode(z).sample
        v = torch.linspace(-1, 1, expected.numel()).view(expected.shape)
        [gradient] = torch.autograd.grad(expected, z, v)
    with decoded_again(vae):
        videos = vae.decode(z).sample
    with Alive() as runs:
        [same] = torch.autograd.grad(videos, z, v)
    assert torch.equal(videos, expected)
    assert torch.equal(same, gradient)
    assert gradient.abs().max() > 0
    assert runs.most < 0.5 * whole.most

"""Autoencoders of videos that decode by runs of frames: the gradient of the whole, holding one run at a time."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sdo_ray.backprop.decoder import decoded_again
from sdo_ray.rollout.preparation import set_decoding
from sdo_ray.sizing.alive import Alive
from tests.backprop.matrix.parts import part

FRAMES = {
    "AutoencoderKLHunyuanVideo": 13,
    "AutoencoderKLMochi": 6,
    "AutoencoderKLLTXVideo": 9,
    "AutoencoderKLWan": 9,
    "AutoencoderKLCogVideoX": 10,
}
"""Frames of latents, more than a run has. The last two decode by runs whether they are told to or not, and hand on what
they computed of one to the next, the first of them in lists that it overwrites."""


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_held_a_run_at_a_time(name: str) -> None:
    torch.manual_seed(0)
    vae: Any = part(name).requires_grad_(False).eval()
    channels = getattr(vae.config, "z_dim", None) or vae.config.latent_channels
    z = torch.randn(1, channels, FRAMES[name], 4, 4).requires_grad_()
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
    torch.testing.assert_close(same, gradient, rtol=1e-5, atol=1e-7)
    assert gradient.abs().max() > 0
    assert runs.most < 0.51 * whole.most

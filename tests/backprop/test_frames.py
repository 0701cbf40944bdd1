"""Autoencoders of videos that decode by runs of frames: the gradient of the whole, holding one run at a time."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sdo_ray.rollout.preparation import set_decoding
from tests.backprop.decoded_twice import again, as_it_is, autoencoder, latents

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
    vae = autoencoder(name)
    z = latents(vae, FRAMES[name], 4, 4)
    pipeline: Any = SimpleNamespace(components={"vae": vae})
    set_decoding(pipeline, "frames")
    assert vae.use_framewise_decoding
    whole, runs = as_it_is(vae, z), again(vae, z)
    assert torch.equal(runs.videos, whole.videos)
    torch.testing.assert_close(runs.gradient, whole.gradient, rtol=1e-5, atol=1e-7)
    assert whole.gradient.abs().max() > 0
    assert runs.held < 0.51 * whole.held

"""An autoencoder of videos that decodes as it is, and again in its backward pass."""

from dataclasses import dataclass
from typing import Any

import torch

from sdo_ray.backprop.decoder import decoded_again
from sdo_ray.sizing.alive import Alive
from tests.backprop.matrix.parts import part


def autoencoder(name: str) -> Any:
    """A tiny one of a class, frozen; its weights are those of seed 0."""
    torch.manual_seed(0)
    return part(name).requires_grad_(False).eval()


def latents(vae: Any, *size: int) -> torch.Tensor:
    """Of one video, [1, C, *size], which want a gradient."""
    channels = getattr(vae.config, "z_dim", None) or vae.config.latent_channels
    return torch.randn(1, channels, *size).requires_grad_()


@dataclass(frozen=True)
class Decoded:
    """What came of it."""

    videos: torch.Tensor
    gradient: torch.Tensor
    """At the latents, of a fixed direction at the videos."""
    held: int
    """Bytes that were alive at most: of both passes, or of the backward pass where that decodes."""


def as_it_is(vae: Any, z: torch.Tensor) -> Decoded:
    """Decoded with a graph."""
    with Alive() as alive:
        videos = vae.decode(z).sample
        [gradient] = torch.autograd.grad(videos, z, direction(videos))
    return Decoded(videos, gradient, alive.most)


def again(vae: Any, z: torch.Tensor) -> Decoded:
    """Decoded again by the backward pass."""
    with decoded_again(vae):
        videos = vae.decode(z).sample
    v = direction(videos)
    with Alive() as alive:
        [gradient] = torch.autograd.grad(videos, z, v)
    return Decoded(videos, gradient, alive.most)


def direction(videos: torch.Tensor) -> torch.Tensor:
    """Of every value another."""
    return torch.linspace(-1, 1, videos.numel()).view(videos.shape)

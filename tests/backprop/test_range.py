"""Pixels beyond [0, 1], whose gradient ends where pipelines clamp them: what that costs, and whether they come back."""

from typing import Any

import pytest
import torch

from sdo_ray.models.load import load_pipeline

PROMPTS = ["a red apple", "a cat face", "a blue car", "a house"]


class Straight(torch.autograd.Function):
    """The clamp with the gradient of doing nothing (straight-through, arXiv 1308.3432)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


@pytest.fixture(scope="module")
def decoding() -> tuple[Any, torch.Tensor]:
    pipe = load_pipeline("zoo://emoji")
    noise = [torch.Generator().manual_seed(i) for i in range(len(PROMPTS))]
    with torch.no_grad():
        z = pipe(PROMPTS, num_inference_steps=6, guidance_scale=3.0, generator=noise, output_type="latent")[0]
    return lambda z: pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample / 2 + 0.5, z


def contrast(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1).var(1).sum()


def test_the_gradient_hardly_differs_from_one_that_goes_through(decoding: tuple[Any, torch.Tensor]) -> None:
    decoded, z = decoding
    raw = decoded(z).detach()
    beyond = (raw - raw.clamp(0, 1)).abs()
    assert 0.1 < (beyond > 0).float().mean() < 0.3  # white paper, mostly
    assert (beyond > 0.05).float().mean() < 0.02
    gradients = []
    for clamp in (lambda x: x.clamp(0, 1), Straight.apply):
        leaf = z.clone().requires_grad_()
        contrast(clamp(decoded(leaf))).backward()
        gradients.append(leaf.grad.flatten(1))
    assert torch.cosine_similarity(*gradients).min() > 0.95


def test_pixels_come_back_with_their_neighbours(decoding: tuple[Any, torch.Tensor]) -> None:
    """Of images that were pushed far beyond white; their layers move them, though no gradient is their own."""
    decoded, z = decoding
    z = z.clone().requires_grad_()

    def pushed(sign: float, clamp: Any) -> tuple[float, float]:
        """Of all pixels the share beyond white, and the mean, after some steps."""
        steps = torch.optim.Adam([z], lr=0.05)
        for _ in range(15):
            steps.zero_grad()
            (sign * clamp(decoded(z))).mean().backward()
            steps.step()
        x = decoded(z).detach()
        return (x > 1).float().mean().item(), x.clamp(0, 1).mean().item()

    over, bright = pushed(-1.0, Straight.apply)
    left, dark = pushed(1.0, lambda x: x.clamp(0, 1))
    assert bright > 0.8
    assert over > 0.2
    assert left < 0.75 * over
    assert dark < bright - 0.1

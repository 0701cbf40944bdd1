"""The closed form is what exact small steps of a normal distribution's denoiser come to."""

from itertools import pairwise

import torch

from benchmarks.gaussian_start import Normal
from tests.backprop.tiny import seeded


def test_the_closed_form_solves_the_equation_of_a_normal_distribution() -> None:
    latents = torch.randn(200, 4, 2, 2, generator=seeded(1), dtype=torch.float64)
    latents = latents @ torch.tensor([[2.0, 0.5], [0.0, 0.3]], dtype=torch.float64) + 1.0
    x = latents.flatten(1)
    mean, covariance = x.mean(0), (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
    alphas = torch.linspace(0.01, 0.6, 1_000, dtype=torch.float64)
    z = start = torch.randn(3, 4, 2, 2, generator=seeded(2), dtype=torch.float64)
    for here, there in pairwise(alphas):
        # DDIM's step, with the noise that the distribution itself says is in z.
        off = z.flatten(1) - here.sqrt() * mean
        noise = (1 - here).sqrt() * torch.linalg.solve(here * covariance + (1 - here) * torch.eye(16), off.T).T
        clean = (z.flatten(1) - (1 - here).sqrt() * noise) / here.sqrt()
        z = (there.sqrt() * clean + (1 - there).sqrt() * noise).view_as(z)
    assert torch.allclose(Normal(latents).moved(start, float(alphas[0]), float(alphas[-1])), z, atol=5e-3)

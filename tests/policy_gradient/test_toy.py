"""A linear reward of a Gaussian step: mean and variance of the estimate in closed form."""

import torch

from sdo_ray.policy_gradient import advantages
from tests.backprop.tiny import seeded

D, G, DRAWS = 3, 6, 100_000
C, Q = -0.6, 0.35
SLOPE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def estimates() -> torch.Tensor:
    """u = (c / (q D)) sum_g a_g eps_g for r = SLOPE . (mu + q eps), a = r - mean without division; [DRAWS, D]."""
    eps = torch.randn(DRAWS, G, D, generator=seeded(0), dtype=torch.float64)
    r = 0.7 + Q * eps @ SLOPE
    return C / (Q * D) * ((r - r.mean(1, keepdim=True))[..., None] * eps).sum(1)


def test_mean_and_variance_are_those_of_the_closed_form() -> None:
    """u = (c/D) W g, W of the Wishart distribution: E u = (G-1) c g / D, Var u_i = (c/D)^2 (G-1) (|g|^2 + g_i^2).

    So its signal over noise grows as the square root of G, and falls as that of D.
    """
    u = estimates()
    mean = (G - 1) * C * SLOPE / D
    variance = (C / D) ** 2 * (G - 1) * (SLOPE.square().sum() + SLOPE.square())
    error = (variance / DRAWS).sqrt()
    assert ((u.mean(0) - mean).abs() < 3 * error).all()
    torch.testing.assert_close(u.var(0), variance, rtol=0.02, atol=0)


def test_the_toy_has_the_advantages_of_the_library() -> None:
    r = torch.randn(12, generator=seeded(1), dtype=torch.float64)
    groups = torch.arange(12) // G
    expected = (r.view(2, G) - r.view(2, G).mean(1, keepdim=True)).flatten()
    torch.testing.assert_close(advantages("plain", [r], [1.0], groups), expected)

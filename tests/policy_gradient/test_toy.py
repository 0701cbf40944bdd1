"""A linear reward of a Gaussian step: mean and variance of the estimate in closed form."""

import torch

from sdo_ray.backprop.transitions import StochasticSteps, transitions
from sdo_ray.policy_gradient import make_policy_plan, policy_cotangents, step_advantages
from tests.backprop.tiny import seeded
from tests.backprop.transitions.schedules import flow

D, G, DRAWS = 3, 6, 100_000
C, Q = -0.6, 0.35
SLOPE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def reward(eps: torch.Tensor, q: float = Q) -> torch.Tensor:
    """r = SLOPE . (mu + q eps), [..., D] -> [...]."""
    return 0.7 + q * eps @ SLOPE


def estimates(eps: torch.Tensor, c: float = C, q: float = Q) -> torch.Tensor:
    """u = (c / (q D)) sum_g a_g eps_g, a = r - mean without division; [draws, G, D] -> [draws, D]."""
    r = reward(eps, q)
    return c / (q * D) * ((r - r.mean(1, keepdim=True))[..., None] * eps).sum(1)


def test_mean_and_variance_are_those_of_the_closed_form() -> None:
    """u = (c/D) W g, W of the Wishart distribution: E u = (G-1) c g / D, Var u_i = (c/D)^2 (G-1) (|g|^2 + g_i^2).

    So its signal over noise grows as the square root of G, and falls as that of D.
    """
    u = estimates(torch.randn(DRAWS, G, D, generator=seeded(0), dtype=torch.float64))
    mean = (G - 1) * C * SLOPE / D
    variance = (C / D) ** 2 * (G - 1) * (SLOPE.square().sum() + SLOPE.square())
    error = (variance / DRAWS).sqrt()
    assert ((u.mean(0) - mean).abs() < 3 * error).all()
    torch.testing.assert_close(u.var(0), variance, rtol=0.02, atol=0)


def test_the_toy_s_estimates_are_the_library_s() -> None:
    plan = make_policy_plan("group", 4, generator=seeded(), children=G, advantage="plain")
    [k], steps = plan.kept, transitions(flow(4), "cps")
    noise = StochasticSteps({k: steps[k]}, [seeded(i) for i in range(2 * G)], plan.branching)
    noise.after(k, *torch.zeros(3, 2 * G, 1, 1, D))
    eps = noise.noise[k].double().view(2, G, D)
    advantages = step_advantages(plan, [reward(eps, steps[k].std).flatten()], [1.0])
    u = policy_cotangents(plan, steps, noise, advantages)[k].view(2, G, D).sum(1)
    torch.testing.assert_close(u.double(), estimates(eps, steps[k].weight, steps[k].std))

"""NFT and AWM against their formulas, and what is left of them where policies are the same."""

import math

import pytest
import torch

from sdo_ray.backprop.transitions import step_levels
from sdo_ray.policy_gradient import awm_loss, decay_at, forward_cotangents, make_policy_plan, nft_loss
from tests.backprop.tiny import seeded
from tests.backprop.transitions.schedules import flow

SHAPE, D = (4, 2, 3, 3), 18
A = torch.tensor([5.0, -2.5, 1.0, -9.0], dtype=torch.float64)
N = 8
LEVELS = step_levels(flow(N))


def numbers(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=seeded(seed), dtype=torch.float64)


X0, E, V, V_AVG = (numbers(i) for i in range(4))


@pytest.mark.parametrize("b", [1.0, 0.1])
def test_nft_s_value_sample_by_sample_in_velocities(b: float) -> None:
    t = 0.6
    x_t = (1 - t) * X0 + t * E
    loss, p = nft_loss(x_t - t * V, x_t - t * V_AVG, X0, A, b)
    for i in range(4):
        r = min(max(A[i].item() / 5, -1), 1) / 2 + 0.5
        plus, minus = b * V[i] + (1 - b) * V_AVG[i], (1 + b) * V_AVG[i] - b * V[i]
        parts = [(x_t[i] - t * v - X0[i]) for v in (plus, minus)]
        each = [float(y.square().mean() / y.abs().mean()) for y in parts]
        assert loss[i].item() == pytest.approx(5 / b * (r * each[0] + (1 - r) * each[1]))
        assert p[i].item() == pytest.approx(r)


def test_nft_of_two_policies_that_are_one_is_an_advantage_weighted_regression() -> None:
    xhat = V.clone().requires_grad_()
    loss, p = nft_loss(xhat, V, X0, A, 0.5)
    (g,) = torch.autograd.grad(loss.sum(), xhat)
    w = (V - X0).abs().flatten(1).mean(1)
    expected = 10 * ((2 * p - 1) / w)[:, None, None, None] * (V - X0) / D
    torch.testing.assert_close(g, expected)


def test_awm_is_a_weighted_distance() -> None:
    o = V.clone().requires_grad_()
    (g,) = torch.autograd.grad(awm_loss(o, E, A, 1.0, 1.0).sum(), o)
    torch.testing.assert_close(g, (A / 5)[:, None, None, None] * 2 * (V - E) / D)
    distance = (V - E).square().flatten(1).mean(1)
    published = A / 5 * 0.7 / 0.25 * ((distance + 1e-10) ** 0.25 - 1e-10**0.25)
    torch.testing.assert_close(awm_loss(V, E, A, 0.7, 0.25), published)


@pytest.mark.parametrize("name", ["nft", "awm"])
def test_cotangents_are_the_gradient_of_the_loss_at_the_noised_samples(name: str) -> None:
    plan = make_policy_plan(name, N, generator=seeded(), output_kl=0.3)
    kept = plan.kept[:2]
    noised = {k: LEVELS[k].alpha * X0 + LEVELS[k].sigma * E for k in kept}
    advantages = torch.tensor([1.0, -2.0, 0.0, 3.0], dtype=torch.float64)
    now, average, base = ({k: made + k for k in kept} for made in (V, V_AVG, E))
    u, said = forward_cotangents(plan, LEVELS, noised, X0, dict.fromkeys(kept, advantages), now, average, base)
    for k in kept:
        v = now[k].clone().requires_grad_()
        t = LEVELS[k].sigma
        if name == "nft":
            loss, _ = nft_loss(noised[k] - t * v, noised[k] - t * average[k], X0, advantages, 1.0)
        else:
            loss = awm_loss(v, E - X0, advantages, t, 0.25) + (v - average[k]).square().flatten(1).mean(1)
        loss = loss + 0.3 * (v - base[k]).square().flatten(1).mean(1)
        (g,) = torch.autograd.grad(loss[[0, 1, 3]].sum(), v)
        torch.testing.assert_close(u[k], -g.float(), rtol=1e-3, atol=1e-5)
        # Who is as good as the group, or has no score, has no part, not even in what holds the model.
        assert (u[k][2] == 0).all()
    assert said["deviation"] == pytest.approx((V - V_AVG).square().mean().item(), rel=1e-4)
    assert ("contrast" in said) == (name == "nft")


def test_how_fast_averages_forget() -> None:
    assert [decay_at("slow", n) for n in (0, 1, 100, 9000)] == [0.0, 0.001, 0.1, 0.5]
    late = [decay_at("late", n) for n in (75, 77, 1000)]
    assert late == pytest.approx([0.0, 0.015, 0.999])
    assert decay_at(0.9, 5) == 0.9
    assert math.isclose(sum(step.alpha + step.sigma for step in LEVELS), N, rel_tol=1e-5)

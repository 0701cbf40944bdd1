"""Losses against densities and formulas written out, and their gradients at the step's output."""

import math

import pytest
import torch

from sdo_ray.backprop.transitions import Transition, transitions
from sdo_ray.policy_gradient import LOSSES, STEP_WEIGHTS, Drift, gaussian_kl, output_distance, step_weight
from tests.backprop.tiny import seeded
from tests.backprop.transitions.schedules import flow

STEP = Transition(of_sample=0.1, of_output=-0.2, std=0.35, weight=-0.6, length=0.125)
SHAPE = (4, 3, 5, 5)
D = 75
A = torch.tensor([1.5, -0.5, 0.7, -2.0], dtype=torch.float64)


def numbers(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=seeded(seed), dtype=torch.float64)


NOISE, OLD = numbers(1), numbers(2)


def log_prob(o: torch.Tensor) -> torch.Tensor:
    """Of z', which was drawn with the old output, by torch's own density; the mean over D."""
    drawn = STEP.weight * OLD + STEP.std * NOISE
    return torch.distributions.Normal(STEP.weight * o, STEP.std).log_prob(drawn).flatten(1).mean(1)


def drift(o: torch.Tensor) -> Drift:
    return Drift.of(STEP, NOISE, o, OLD)


def test_the_ratio_and_the_divergence_are_those_of_the_densities() -> None:
    o = OLD + 0.3 * numbers(3)
    torch.testing.assert_close(drift(o).log_ratio, log_prob(o) - log_prob(OLD))
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(STEP.weight * o, STEP.std), normal(STEP.weight * OLD, STEP.std))
    torch.testing.assert_close(drift(o).divergence, kl.flatten(1).mean(1))
    torch.testing.assert_close(gaussian_kl(STEP, o, OLD), kl.flatten(1).mean(1))


@pytest.mark.parametrize(("name", "scale"), [("grpo", 1.0), ("dppo", 1.0), ("guard", STEP.std / STEP.length)])
@pytest.mark.parametrize("clip", [None, 1e-4])
def test_on_policy_all_are_the_plain_policy_gradient(name: str, scale: float, clip: float | None) -> None:
    o = OLD.clone().requires_grad_()
    (g,) = torch.autograd.grad(LOSSES[name](drift(o), A, clip).sum(), o)
    expected = -STEP.weight * A[:, None, None, None] * NOISE / (STEP.std * D)
    torch.testing.assert_close(g, scale * expected)
    p = OLD.clone().requires_grad_()
    (of_density,) = torch.autograd.grad((-A * log_prob(p)).sum(), p)
    torch.testing.assert_close(expected, of_density)


def moved(towards: torch.Tensor) -> torch.Tensor:
    """Outputs whose mean has moved along the noise (ratio > 1) or against it (ratio < 1)."""
    return OLD + 0.05 * towards[:, None, None, None] * NOISE / STEP.weight


def taught(name: str, o: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Which samples still have a gradient."""
    o = o.clone().requires_grad_()
    (g,) = torch.autograd.grad(LOSSES[name](drift(o), A, clip).sum(), o)
    return g.flatten(1).abs().sum(1) > 0


@pytest.mark.parametrize("name", LOSSES)
def test_what_has_moved_far_enough_the_right_way_stops(name: str) -> None:
    right, wrong = moved(A.sign()), moved(-A.sign())
    assert not taught(name, right, 1e-4).any()
    assert taught(name, wrong, 1e-4).all()
    assert taught(name, right, None).all()


def test_grpo_s_value() -> None:
    o = OLD + 0.3 * numbers(3)
    for a, ratio, loss in zip(A, drift(o).log_ratio.exp(), LOSSES["grpo"](drift(o), A, 1e-3), strict=True):
        bounded = min(max(ratio.item(), 1 - 1e-3), 1 + 1e-3)
        assert loss.item() == pytest.approx(max(-a.item() * ratio.item(), -a.item() * bounded))


def test_guard_s_value() -> None:
    o = OLD + 0.3 * numbers(3)
    rho = ((log_prob(o) - log_prob(OLD) + drift(o).divergence) * STEP.std).exp()
    torch.testing.assert_close(LOSSES["guard"](drift(o), A, None), -A * rho / STEP.length)


def test_anchors() -> None:
    o = OLD + numbers(3)
    torch.testing.assert_close(output_distance(o, OLD), numbers(3).square().flatten(1).mean(1))


def test_step_weights_change_the_scalar_alone() -> None:
    made = transitions(flow(), "cps")
    assert step_weight("one", made, 2, [1, 2]) == 1
    # c / D instead of c / (q D), times 2.25; and of the density without its 1 / (2 q^2)
    assert step_weight("tempflow", made, 2, [2]) == pytest.approx(2.25 * made[2].std)
    assert step_weight("bare", made, 2, [2]) == pytest.approx(2 * made[2].std ** 2)
    pool = [0, 1, 2, 3]
    weights = [step_weight("flash", made, k, pool) for k in pool]
    assert sum(weights) == pytest.approx(len(pool))
    even = [w * abs(made[k].weight) / made[k].std for w, k in zip(weights, pool, strict=True)]
    assert even == pytest.approx([even[0]] * 4)
    assert set(STEP_WEIGHTS) == {"one", "tempflow", "bare", "flash"}


def test_flash_is_the_published_weight() -> None:
    """1 / (sqrt(-d) / h + h sqrt(-d) (1 - s) / (2 s)) for the equation's kernels."""
    scheduler, eta = flow(), 0.3
    made, s = transitions(scheduler, "dance", eta), scheduler.sigmas.double().tolist()
    for k, transition in enumerate(made):
        root = math.sqrt(s[k] - s[k + 1])
        published = 1 / (root / eta + eta * root * (1 - s[k]) / (2 * s[k]))
        assert STEP_WEIGHTS["flash"](transition) == pytest.approx(published, rel=1e-5)

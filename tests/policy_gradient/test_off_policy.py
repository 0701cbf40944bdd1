"""Losses by how far the policy has moved, as cotangents: identities at no drift, exact zeros, and the anchors."""

import pytest
import torch

from sdo_ray.policy_gradient import (
    PolicyPlan,
    anchor_cotangents,
    drifted_cotangents,
    make_policy_plan,
    policy_cotangents,
    step_advantages,
)
from tests.backprop.tiny import seeded
from tests.policy_gradient.test_cotangents import STEPS, N, R, made, normal

OLD = normal(7)


def planned(**options: object) -> tuple[PolicyPlan, int]:
    plan = make_policy_plan("group", N, generator=seeded(), children=3, **options)
    return plan, plan.kept[0]


@pytest.mark.parametrize(("loss", "clip"), [("grpo", None), ("grpo", 1e-4), ("dppo", 1e-5), ("guard", 2e-6)])
def test_without_a_drift_it_is_reinforce(loss: str, clip: float | None) -> None:
    plan, k = planned(loss=loss, clip=clip)
    steps, a = made(plan), step_advantages(plan, [R], [1.0])
    u, numbers = drifted_cotangents(plan, STEPS, steps, a, {k: OLD}, {k: OLD})
    scale = STEPS[k].std / STEPS[k].length if loss == "guard" else 1.0
    torch.testing.assert_close(u[k], scale * policy_cotangents(plan, STEPS, steps, a)[k])
    assert numbers == {"log_ratio": 0.0, "masked" if loss == "dppo" else "clipped": 0.0}


def test_the_ratio_weighs_each_sample() -> None:
    plan, k = planned(loss="grpo")
    steps, a = made(plan), step_advantages(plan, [R], [1.0])
    new = OLD + 0.3 * normal(8)
    u, numbers = drifted_cotangents(plan, STEPS, steps, a, {k: new}, {k: OLD})
    t, eps = STEPS[k], steps.noise[k]
    # z' - mu by the newest policy, in place of q eps by the one that sampled it
    left = t.std * eps - t.weight * (new - OLD)
    log_ratio = (eps.square() - left.square() / t.std**2).flatten(1).mean(1) / 2
    by_hand = a[k].float() * log_ratio.exp() * t.weight / (t.std**2 * eps[0].numel())
    torch.testing.assert_close(u[k], by_hand[:, None, None, None] * left)
    assert numbers["log_ratio"] == pytest.approx(log_ratio[a[k] != 0].abs().mean().item(), rel=1e-4)
    assert numbers["clipped"] == 0


@pytest.mark.parametrize(("loss", "name"), [("grpo", "clipped"), ("guard", "clipped"), ("dppo", "masked")])
def test_who_has_moved_far_enough_has_no_part_at_all(loss: str, name: str) -> None:
    plan, k = planned(loss=loss, clip=1e-6)
    steps, a = made(plan), step_advantages(plan, [R], [1.0])
    # Samples 0 and 3 have moved the way their advantages ask for, 1 and 5 against it.
    way = torch.zeros(6)
    way[[0, 3]], way[[1, 5]] = a[k][[0, 3]].sign().float(), -a[k][[1, 5]].sign().float()
    new = OLD + 0.1 * way[:, None, None, None] * steps.noise[k] / STEPS[k].weight
    u, numbers = drifted_cotangents(plan, STEPS, steps, a, {k: new}, {k: OLD})
    assert (u[k][[0, 3]] == 0).all()
    assert (u[k][[1, 5]].flatten(1).abs().amax(1) > 0).all()
    assert numbers[name] == pytest.approx(2 / int((a[k] != 0).sum()))


def test_anchors_are_zero_at_the_base_model_and_pull_to_it_elsewhere() -> None:
    plan, k = planned(kl=0.3, output_kl=0.2)
    steps = made(plan)
    u, numbers = anchor_cotangents(plan, STEPS, steps, {k: OLD}, {k: OLD})
    assert (u[k] == 0).all()
    assert numbers == {"kl": 0.0}
    new = OLD + 0.5 * normal(8)
    u, numbers = anchor_cotangents(plan, STEPS, steps, {k: new}, {k: OLD})
    share = STEPS[k].weight ** 2 / (2 * STEPS[k].std ** 2)
    torch.testing.assert_close(u[k], -2 * (0.3 * share + 0.2) * (new - OLD) / OLD[0].numel())
    assert numbers["kl"] == pytest.approx(share * (new - OLD).square().mean().item(), rel=1e-4)

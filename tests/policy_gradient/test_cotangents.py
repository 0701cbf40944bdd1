"""Pulls at outputs against autograd of the log-probabilities written out."""

import math
from dataclasses import replace

import pytest
import torch

from sdo_ray.backprop.transitions import Branching, StochasticSteps, transitions
from sdo_ray.policy_gradient import (
    LOSSES,
    Drift,
    PolicyPlan,
    difference_cotangents,
    make_policy_plan,
    policy_cotangents,
    step_advantages,
)
from tests.backprop.tiny import seeded
from tests.backprop.transitions.schedules import flow

N = 8
SHAPE = (6, 2, 3, 3)
D = 18
STEPS = transitions(flow(N), "cps")
R = torch.tensor([1.0, 3.0, 2.0, -1.0, 0.0, 4.0])


def normal(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=seeded(seed))


def made(plan: PolicyPlan) -> StochasticSteps:
    """A call of two groups of three, as it is after its stochastic steps."""
    steps = StochasticSteps({k: STEPS[k] for k in plan.stochastic}, [seeded(i) for i in range(6)], plan.branching)
    for k in plan.stochastic:
        steps.after(k, normal(1), normal(2), normal(3))
    return steps


def summed(u: torch.Tensor, run: int) -> torch.Tensor:
    """Of rows that are one."""
    return u.view(-1, run, *u.shape[1:]).sum(1)


def test_of_a_group_it_is_the_gradient_of_the_sum_of_log_probabilities() -> None:
    plan = make_policy_plan("group", N, generator=seeded(), children=3)
    [k] = plan.kept
    steps = made(plan)
    a = step_advantages(plan, [R], [2.0])
    u = policy_cotangents(plan, STEPS, steps, a)[k]
    o = torch.zeros(2, *SHAPE[1:], requires_grad=True)  # of each root
    old = torch.zeros_like(o)
    drift = Drift.of(STEPS[k], steps.noise[k], *(x.repeat_interleave(3, 0) for x in (o, old)))
    (g,) = torch.autograd.grad(-LOSSES["grpo"](drift, a[k].float(), None).sum(), o)
    torch.testing.assert_close(summed(u, 3), g)


@pytest.mark.parametrize("baseline", ["seed", "prompt"])
def test_seeds_compete_where_the_baseline_is_the_prompt_s(baseline: str) -> None:
    plan = make_policy_plan("group", N, generator=seeded(), children=3, seeds=2, baseline=baseline, advantage="plain")
    [a] = step_advantages(plan, [R], [1.0]).values()
    mean = R.mean() if baseline == "prompt" else R.view(2, 3).mean(1).repeat_interleave(3)
    torch.testing.assert_close(a.float(), R - mean)


def test_permuting_children_changes_nothing() -> None:
    plan = make_policy_plan("group", N, generator=seeded(), children=3)
    [k] = plan.kept
    steps, order = made(plan), torch.tensor([2, 0, 1, 4, 5, 3])
    u = policy_cotangents(plan, STEPS, steps, step_advantages(plan, [R], [1.0]))[k]
    steps.noise[k] = steps.noise[k][order]
    other = policy_cotangents(plan, STEPS, steps, step_advantages(plan, [R[order]], [1.0]))[k]
    torch.testing.assert_close(summed(u, 3), summed(other, 3))


def test_a_constant_reward_is_exactly_zero() -> None:
    plan = make_policy_plan("group", N, generator=seeded(), children=3)
    [k] = plan.kept
    u = policy_cotangents(plan, STEPS, made(plan), step_advantages(plan, [torch.full((6,), 0.1)], [1.0]))[k]
    assert (u == 0).all()


def test_of_the_better_ones_those_that_are_unlike_the_others_count_more() -> None:
    """Two groups of three: latents on a line, whose neighbours are 1, 1 and 3 away; and one without its second."""
    plan = make_policy_plan("group", N, generator=seeded(), children=3, advantage="novelty")
    holes = R.clone()
    holes[4] = math.nan
    z = torch.tensor([0.0, 1.0, 4.0, 0.0, 9.0, 2.0])[:, None]
    [a] = step_advantages(plan, [holes], [1.0], z).values()
    expected = torch.tensor([-1.0, 1 / (5 / 3), 0.0, -2.5, 0.0, 2.5], dtype=torch.float64)
    torch.testing.assert_close(a, expected)
    same = step_advantages(plan, [R], [1.0], torch.zeros(6, 1))
    plain = step_advantages(replace(plan, advantage="plain"), [R], [1.0])
    assert same.keys() == plain.keys()
    assert all(torch.equal(same[k], plain[k]) for k in same)


def test_in_a_tree_each_edge_counts_once() -> None:
    """A split into 3 at step 1, into 2 at step 3, noise at step 2 on every branch: three depths of one tree."""
    branching = Branching({1: 3, 3: 2})
    plan = PolicyPlan("own", N, (1, 2, 3), (1, 2, 3), branching, advantage="depth")
    steps = made(plan)
    a = step_advantages(plan, [R], [1.0])
    u = policy_cotangents(plan, STEPS, steps, a)
    node = R.double().view(3, 2).mean(1)
    depth = (node - node.mean()) / node.std(correction=0)
    for k in (1, 2):
        torch.testing.assert_close(a[k][::2], depth)
        t = STEPS[k]
        expected = [depth[i].float() * t.weight * steps.noise[k][2 * i] / (t.std * D) for i in range(3)]
        torch.testing.assert_close(summed(u[k], 2), torch.stack(expected))
    leaf = (R - R.mean()) / R.std(correction=0)
    torch.testing.assert_close(a[3].float(), leaf)


def test_branches_that_are_likelier_count_more_by_their_noise() -> None:
    """log p of a step is -mean(eps^2) / 2, and what siblings have in common."""
    plan = PolicyPlan("own", N, (1, 3), (1, 3), Branching({1: 2, 3: 2}), advantage="depth", by_likelihood=True)
    r, noise = torch.tensor([0.0, 4.0, 1.0, 2.0]), {k: torch.ones(4, 1, 2, 2) for k in (1, 3)}
    alike = replace(plan, by_likelihood=False)
    assert step_advantages(plan, [r], [1.0], noise=noise)[1].tolist() == pytest.approx([1, 1, -1, -1])
    for k, a in step_advantages(alike, [r], [1.0]).items():
        torch.testing.assert_close(step_advantages(plan, [r], [1.0], noise=noise)[k], a)
    noise[3][1] = 4.0  # the leaf of 4 was very unlikely: its branch is worth about 0
    assert step_advantages(plan, [r], [1.0], noise=noise)[1].tolist() == pytest.approx([-1, -1, 1, 1])


def test_after_its_last_split_a_tree_can_learn_from_its_best_and_worst_leaf_alone() -> None:
    plan = PolicyPlan("own", N, (1, 3), (1, 3), Branching({1: 3, 3: 2}), advantage="depth", best_and_worst=2)
    a = step_advantages(plan, [R], [1.0])
    assert a[3].nonzero().flatten().tolist() == [3, 5]
    assert len(a[1].nonzero()) == 6


def test_after_its_last_split_a_tree_can_learn_from_the_better_of_each_branch_s_children_alone() -> None:
    plan = PolicyPlan("own", N, (1, 3), (1, 3), Branching({1: 2, 3: 3}), advantage="depth", better_half=True)
    whole = replace(plan, better_half=False)
    holes = R.clone()
    holes[0], holes[3] = 0.5, math.nan  # leaves two in the second branch
    a, all_of_them = (step_advantages(p, [holes], [1.0]) for p in (plan, whole))
    assert a[3].nonzero().flatten().tolist() == [1, 2, 5]
    assert torch.equal(a[3][[1, 2, 5]], all_of_them[3][[1, 2, 5]])
    assert torch.equal(a[1], all_of_them[1])


def test_who_is_missing_pulls_nowhere() -> None:
    plan = make_policy_plan("group", N, generator=seeded(), children=3)
    [k] = plan.kept
    holes = R.clone()
    holes[1] = math.nan
    u = policy_cotangents(plan, STEPS, made(plan), step_advantages(plan, [holes], [1.0]))[k]
    assert (u[1] == 0).all()
    assert (u[[0, 2]] != 0).all()


def test_a_weight_scales_the_step() -> None:
    plan = make_policy_plan("group", N, generator=seeded(), children=3, weight="tempflow")
    plain = make_policy_plan("group", N, generator=seeded(), children=3)
    [k] = plan.kept
    steps, a = made(plan), step_advantages(plan, [R], [1.0])
    scaled, one = (policy_cotangents(p, STEPS, steps, a)[k] for p in (plan, plain))
    torch.testing.assert_close(scaled, 2.25 * STEPS[k].std * one)


def test_pairs_have_the_slope_of_a_linear_reward_along_their_difference() -> None:
    plan = make_policy_plan("pair", N, generator=seeded(), pairs=3, K=1)
    slope, z = normal(5).double()[:1], normal(6)
    r = (slope * z.double()).flatten(1).sum(1)
    w = torch.arange(1.0, N + 1, dtype=torch.float64)
    u = difference_cotangents(plan, w, z, [r], [0.5])
    assert u.keys() == set(plan.kept)
    for k, pull in u.items():
        for i in range(3):
            dz = (z[2 * i] - z[2 * i + 1]).double()
            along = (slope[0] * dz).sum() / dz.square().sum() * dz
            for row in (2 * i, 2 * i + 1):
                torch.testing.assert_close(pull[row], (0.5 * w[k] * along).float())


@pytest.mark.parametrize("z", [normal(6), torch.zeros(SHAPE)])
def test_pairs_without_a_difference_or_a_score_are_zero(z: torch.Tensor) -> None:
    plan = make_policy_plan("pair", N, generator=seeded(), pairs=3)
    holes = torch.tensor([1.0, math.nan, math.nan, math.nan, 2.0, 2.0])
    u = difference_cotangents(plan, torch.ones(N, dtype=torch.float64), z, [holes], [1.0])
    assert all((pull == 0).all() for pull in u.values())

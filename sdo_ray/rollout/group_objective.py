"""What a batch in groups learns from: pulls at its kept outputs, of rewards with and without a gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from rewards.mix import combine_scores, usable
from rewards.pulls import Memory
from rewards.terms import Mixing, RewardTerm
from sdo_ray.policy_gradient import (
    PolicyPlan,
    Weight,
    anchor_cotangents,
    difference_cotangents,
    drifted_cotangents,
    forward_cotangents,
    group_statistics,
    mixed,
    policy_cotangents,
    sign_agreement,
    step_advantages,
)
from sdo_ray.rollout.groups import Groups
from sdo_ray.rollout.noised import noised_again
from sdo_ray.rollout.objective import (
    NOTHING_KNOWN,
    Cotangents,
    ImageGradients,
    Objective,
    Scores,
    image_gradient,
)
from sdo_ray.rollout.other_policies import OtherOutputs, Weights, other_outputs
from sdo_ray.rollout.sampling import Trajectory


def ask_others(
    trajectory: Trajectory,
    groups: Groups,
    denoisers: Mapping[str, torch.nn.Module],
    others: Mapping[str, Weights],
    *,
    newer: bool,
    noise: Sequence[torch.Generator],
) -> tuple[Trajectory, OtherOutputs]:
    """The trajectory to take back, and what its kept steps are by other weights, for a plan that asks for these.

    Args:
        trajectory: with kept calls.
        groups: of the batch.
        denoisers: with the weights of the policy that learns.
        others: "base", "average": weights by their name.
        newer: whether it is another than the one that sampled.
        noise: of samples that are noised again.

    Raises:
        ValueError: there are no such weights.
        TraceError: see `noised_again`.
    """
    plan, noised = groups.plan, None
    wanted = [name for name, asked in (("base", plan.is_anchored), ("average", plan.forward is not None)) if asked]
    if missing := [name for name in wanted if name not in others]:
        got = f"plan {plan.name!r} with these options learns by the weights of the {' and the '.join(missing)}"
        raise ValueError(f"{got}, which only `sdo align` has")
    if plan.forward:
        trajectory, noised = noised_again(trajectory, groups.levels, noise)
    weights = {name: others[name] for name in wanted}
    made = other_outputs(trajectory, denoisers, newer=newer or plan.forward is not None, weights=weights, noised=noised)
    return trajectory, made


def group_objective(
    trajectory: Trajectory,
    groups: Groups,
    scores: Scores,
    gradients: ImageGradients,
    terms: Sequence[RewardTerm],
    mixing: Mixing,
    memory: Memory = NOTHING_KNOWN,
    others: OtherOutputs | None = None,
) -> tuple[Objective, dict[str, float]]:
    """What a batch in groups learns from: cotangents at its kept outputs alone.

    A reward that has a gradient, in a trajectory that passes it on, teaches by it, taken back to the kept outputs; all
    others by their groups. Where there are both, they are balanced over the batch: of the norm at each kept step,
    `plan.share` is of those without a gradient.

    Args:
        trajectory: sampled with the groups' stochastic steps; if it passes gradients on, its graph from the samples to
            the kept outputs is freed.
        groups: of the batch.
        scores: of every sample.
        gradients: likewise.
        terms: weights, caps and targets.
        mixing: see `rewards.mix`.
        memory: of the updates before.
        others: what other weights make of the kept steps, for a plan that asks for it.

    Returns:
        The objective; a sample without one of the scores or gradients is not valid, and has no part in its group. And
        numbers for the report, see `Contribution.groups`.

    Raises:
        ValueError: no term has a weight, or one that has is missing.
    """
    assert trajectory.stochastic is not None
    passes_on = trajectory.stochastic.differentiable
    pulling = [term for term in terms if term.weight and passes_on and gradients.get(term.key) is not None]
    told = [term for term in terms if term.weight and term not in pulling]
    valid = usable(scores, {term.key: gradients[term.key] for term in pulling}, terms)
    score = torch.where(valid, combine_scores(scores, terms), torch.nan)
    pulled = image_gradient(scores, gradients, pulling, valid, mixing, memory) if pulling else None
    by_reward = {} if pulled is None else _reward_pulls(trajectory, pulled.v)
    by_group, drift = _group_pulls(trajectory, groups, scores, told, valid, others) if told else ({}, {})
    together, parts = _balanced(by_reward, by_group, groups.plan.share)
    numbers = (_numbers(groups.plan, scores, told, valid) if told else {}) | drift | parts
    cotangents = Cotangents(None, [(kept, together[kept.step]) for kept in trajectory.outputs])
    if pulled is None:
        return Objective(score, valid, cotangents), numbers
    return Objective(score, valid, cotangents, pulled.pulls, pulled.cosines), numbers


def _reward_pulls(trajectory: Trajectory, v: torch.Tensor) -> dict[int, torch.Tensor]:
    """Kept step -> dR/do_k, taken back from the samples."""
    x, outputs = trajectory.samples, [kept.o for kept in trajectory.outputs]
    found = torch.autograd.grad(x, outputs, v.to(x.device, x.dtype))
    return {kept.step: g.float() for kept, g in zip(trajectory.outputs, found, strict=True)}


def _group_pulls(
    trajectory: Trajectory,
    groups: Groups,
    scores: Scores,
    terms: Sequence[RewardTerm],
    valid: torch.Tensor,
    others: OtherOutputs | None,
) -> tuple[dict[int, torch.Tensor], dict[str, float]]:
    """Kept step -> u_k of rewards without a gradient, and of the base model; and numbers for the report."""
    made, plan = trajectory.stochastic, groups.plan
    assert made is not None
    told, weights = _told(scores, terms, valid), _weights(terms)
    numbers: dict[str, float] = {}
    worth = partial(step_advantages, plan, told, weights, made.newest[0], made.noise)
    if plan.differences:
        found = difference_cotangents(plan, groups.solver, made.newest[0], told, weights)
    elif plan.forward:
        assert others is not None
        assert others.noised is not None
        found, numbers = forward_cotangents(
            plan,
            groups.levels,
            others.noised,
            made.newest[0],
            worth(),
            others.newest,
            others.others["average"],
            others.others.get("base"),
        )
    elif plan.corrects:
        assert others is not None
        found, numbers = drifted_cotangents(plan, groups.transitions, made, worth(), others.newest, others.sampled)
    else:
        found = policy_cotangents(plan, groups.transitions, made, worth())
    if plan.is_anchored and not plan.forward:
        assert others is not None
        anchors, distance = anchor_cotangents(plan, groups.transitions, made, others.newest, others.others["base"])
        found, numbers = {k: u + anchors[k] for k, u in found.items()}, numbers | distance
    return {kept.step: _as_output(found[kept.step].to(kept.o.device), kept.o) for kept in trajectory.outputs}, numbers


def _told(scores: Scores, terms: Sequence[RewardTerm], valid: torch.Tensor) -> list[torch.Tensor]:
    """Each term's scores, capped; NaN where not valid, 0 where the term does not count, and need have no score.

    Without what `weigh_by` has for the rows, which is of the weights: an advantage that divides each reward by its own
    deviation would divide it out of the scores.
    """
    found = []
    for term, weight in zip(terms, _weights(terms), strict=True):
        told = combine_scores(scores, [replace(term, shares=None)]) / term.weight
        counts = torch.as_tensor(weight != 0, device=told.device)
        found.append(torch.where(valid, torch.where(counts, told, 0.0), torch.nan))
    return found


def _weights(terms: Sequence[RewardTerm]) -> list[Weight]:
    """Of each term; [B] where it is weighed row by row."""
    return [
        term.weight if term.shares is None else term.weight * torch.tensor(term.shares, dtype=torch.float64)
        for term in terms
    ]


def _as_output(u: torch.Tensor, o: torch.Tensor) -> torch.Tensor:
    """Zeros for what an output says besides its mean, a learned variance."""
    return torch.cat([u, u.new_zeros(len(u), o.shape[1] - u.shape[1], *u.shape[2:])], 1) if u.shape != o.shape else u


def _balanced(
    by_reward: Mapping[int, torch.Tensor], by_group: Mapping[int, torch.Tensor], share: float
) -> tuple[dict[int, torch.Tensor], dict[str, float]]:
    """(1 - share) g + share |g|/|u| u, and the norms and cosine of g and u, over all kept steps; one where alone."""
    if not by_reward or not by_group:
        return dict(by_reward or by_group), {}
    g, u = (torch.cat([pulls[k].double().flatten() for k in by_reward]) for pulls in (by_reward, by_group))
    g_norm, u_norm = g.norm().item(), u.norm().item()
    parts = {"gradient_norm": g_norm, "group_norm": u_norm}
    if not g_norm or not u_norm:
        return {k: by_reward[k] + by_group[k] for k in by_reward}, parts
    parts["cosine"] = (g @ u).item() / (g_norm * u_norm)
    scale = share * g_norm / u_norm
    return {k: (1 - share) * by_reward[k] + scale * by_group[k] for k in by_reward}, parts


def _numbers(plan: PolicyPlan, scores: Scores, terms: Sequence[RewardTerm], valid: torch.Tensor) -> dict[str, float]:
    """Of the groups for which a reward counts; none if there are no such groups."""
    weights = _weights(terms)
    rewards = mixed(_told(scores, terms, valid), weights)
    groups = torch.arange(len(rewards)) // plan.compared
    counted = torch.stack([torch.as_tensor(weight != 0).expand(len(rewards)) for weight in weights]).any(0)
    if not counted.any():
        return {}
    rewards, groups = rewards[counted.to(rewards.device)], groups[counted]
    found = group_statistics(rewards, groups)
    numbers = {"flat_share": found.flat_share, "spread": found.spread, "missing": float(found.missing)}
    agreement = sign_agreement(rewards, groups)
    return numbers if math.isnan(agreement) else numbers | {"sign_agreement": agreement}

"""From the rewards of a batch of groups to the pull at the outputs of its kept steps.

Notation
    c, q, eps    of the stochastic step after output o_k (`sdo_ray.backprop.transitions`);  D  elements of one latent
    a_b, w       advantage of row b, weight of the step
    u_k          what is added up to move o_k: rows that are one at step k have one output, to which all of theirs go

The policy that learns is the one that sampled, so the gradient of sum_b a_b logp_b at o_k is, row by row,

    u_k[b] = w a_b c eps_b / (q D)

Where rows are still one after step k they have one noise and one probability, which counts once.
"""

from collections.abc import Mapping, Sequence

import torch

from sdo_ray.backprop.transitions import StochasticSteps, Transition
from sdo_ray.policy_gradient.advantages import CLAMP, Weight, advantages, better_half, by_novelty, extremes
from sdo_ray.policy_gradient.plan import PolicyPlan
from sdo_ray.policy_gradient.step_weights import step_weight
from sdo_ray.policy_gradient.trees import edge_advantages

NO_NOISE: Mapping[int, torch.Tensor] = {}


def step_advantages(
    plan: PolicyPlan,
    scores: Sequence[torch.Tensor],
    weights: Sequence[Weight],
    final: torch.Tensor | None = None,
    noise: Mapping[int, torch.Tensor] = NO_NOISE,
) -> dict[int, torch.Tensor]:
    """Kept step -> a, float64 [B]; 0 for what is missing.

    Args:
        plan: of the batch.
        scores: of each reward with a weight, [B], rows in groups; what is not finite is missing.
        weights: of the rewards, see `advantages`.
        final: z_N, [B, C, ...], for an advantage that looks at them.
        noise: step -> eps, [B, C, ...], for a tree whose branches count by their probability.
    """
    if plan.advantage == "depth":
        rewards = mixed(scores, weights)
        edges = edge_advantages(plan.branching, rewards, _log_probs(plan, noise) if plan.by_likelihood else None)
        # Width pruning: after the last split branches are leaves.
        last, rows = max(edges), torch.arange(len(rewards))
        if plan.best_and_worst is not None:
            trees = rows // plan.branching.leaves
            edges[last] = extremes(edges[last], rewards.isfinite(), trees, plan.best_and_worst)
        elif plan.better_half:
            siblings = rows // plan.branching.splits[last]
            edges[last] = better_half(edges[last], rewards.isfinite(), siblings)
        # A step without a split goes on along the branches of the last one.
        return {k: edges[max(split for split in edges if split <= k)] for k in plan.kept}
    count = len(scores[0])
    groups = torch.arange(count) // plan.compared
    if plan.advantage == "novelty":
        assert final is not None
        same = advantages("plain", scores, weights, groups, plan.best_and_worst)
        same = by_novelty(same, final, mixed(scores, weights).isfinite(), groups).clamp(-CLAMP, CLAMP)
    else:
        same = advantages(plan.advantage, scores, weights, groups, plan.best_and_worst, plan.trimmed)
    return dict.fromkeys(plan.kept, same)


def policy_cotangents(
    plan: PolicyPlan,
    transitions: Sequence[Transition],
    made: StochasticSteps,
    step_advantages: Mapping[int, torch.Tensor],
) -> dict[int, torch.Tensor]:
    """Kept step -> u_k, float32 [B, C, ...], to be added: it points to where the reward is higher.

    Args:
        plan: of the batch.
        transitions: of steps 0 .. N-2.
        made: after the call, with its noise.
        step_advantages: from `step_advantages`.
    """
    found = {}
    for k, a in step_advantages.items():
        eps, transition = made.noise[k], transitions[k]
        w = step_weight(plan.weight, transitions, k, plan.pool or plan.kept) / made.branching.same_after(k)
        scale = w * transition.weight / (transition.std * eps[0].numel())
        found[k] = scale * _by_row(a, eps) * eps
    return found


def difference_cotangents(
    plan: PolicyPlan,
    solver: torch.Tensor,
    final: torch.Tensor,
    scores: Sequence[torch.Tensor],
    weights: Sequence[Weight],
) -> dict[int, torch.Tensor]:
    """Kept step -> w_k g, float32 [B, C, ...], for both of a pair g = (R+ - R-) dz / |dz|^2.

    Args:
        plan: of the batch, with pairs of neighbouring rows.
        solver: w_k = dz_N / do_k, [N], of the solver without noise.
        final: z_N, [B, C, ...].
        scores: of each reward with a weight, [B]; a pair of which one is missing has g = 0.
        weights: of the rewards, see `advantages`.
    """
    r = mixed(scores, weights)
    z = final.detach().double().cpu()
    dz, dr = z[::2] - z[1::2], r[::2] - r[1::2]
    slope = torch.nan_to_num(dr / dz.flatten(1).square().sum(1), nan=0.0, posinf=0.0, neginf=0.0)
    g = (_by_row(slope, dz) * dz).repeat_interleave(2, 0)
    return {k: (solver[k] * g).float() for k in plan.kept}


def mixed(scores: Sequence[torch.Tensor], weights: Sequence[Weight]) -> torch.Tensor:
    """sum_j w_j r_j, float64 [B]; NaN where one is missing."""
    r = sum(w * s.double() for s, w in zip(scores, weights, strict=True))
    assert isinstance(r, torch.Tensor)
    return torch.where(r.isfinite(), r, torch.nan)


def _log_probs(plan: PolicyPlan, noise: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    """Split -> log p of its step, float64 [B], but for what siblings have in common: mean_D -eps^2 / 2."""
    return {k: -noise[k].double().square().flatten(1).mean(1).cpu() / 2 for k in plan.branching.splits}


def _by_row(a: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return a.to(like.dtype).view(-1, *(1 for _ in like.shape[1:]))

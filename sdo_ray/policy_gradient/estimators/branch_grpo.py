"""BranchGRPO (arXiv 2509.06040): a tree of samples whose branches are compared at each depth."""

from collections.abc import Sequence

import torch

from sdo_ray.backprop import PlanError, draws
from sdo_ray.backprop.transitions import Branching
from sdo_ray.policy_gradient.estimators.windows import count
from sdo_ray.policy_gradient.plan import PolicyPlan
from sdo_ray.policy_gradient.registry import policy_estimator


@policy_estimator("branch-grpo")
def branch_grpo(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    update: int = 0,
    splits: Sequence[int] = (0, 3, 6, 9),
    children: int = 2,
    pruned: int = 0,
    every: int = 30,
    better_half: bool = False,
    by_likelihood: bool = False,
    window: int = 0,
) -> PolicyPlan:
    """All steps but the last stochastic; at splits each branch parts. A step learns from the branches that it is on.

    The authors' code draws a split's noise at another scale than its probability says; here they agree.

    Args:
        num_steps: N; 20 as published.
        generator: not used.
        update: the number of the update, which says where the pruned steps are.
        splits: steps at which branches part.
        children: of each branch there.
        pruned: length of a window of steps that nothing is learned from, at the end of the sampling first and one step
            earlier after each `every` updates, down to the last split (depth pruning); 0: none. 4 as published.
        every: 30 as published.
        better_half: whether after the last split only the better half of each branch's children is learned from (width
            pruning); `best_and_worst` is the authors' other way.
        by_likelihood: whether a branch is worth what its children are by their probability, rather than alike.
        window: length of a window of stochastic steps that moves as MixGRPO's does, after each `every` updates; steps
            outside of it that are no splits have no noise, and nothing is learned from them. 0: all have noise.

    Raises:
        PlanError: an option out of range.
    """
    steps, at = tuple(range(num_steps - 1)), sorted(set(splits))
    if not at or not all(isinstance(k, int) and k in steps for k in at):
        raise PlanError("splits", list(splits), f"steps in 0 .. {num_steps - 2}", "choose earlier ones, or more steps")
    if size := count("window", window, 0):
        draws.check_count("window", size, len(steps))
        first = update // count("every", every, 1) % (len(steps) - size + 1)
        steps = tuple(k for k in steps if k in at or first <= k < first + size)
    start = max(num_steps - 1 - count("pruned", pruned, 0) - update // count("every", every, 1), at[-1] + 1)
    kept = tuple(k for k in steps if k >= at[0] and not start <= k < start + pruned)
    branching = Branching(dict.fromkeys(at, count("children", children, 2)))
    return PolicyPlan(
        "branch-grpo",
        num_steps,
        steps,
        kept,
        branching,
        kernel="dance",
        advantage="depth",
        better_half=better_half,
        by_likelihood=by_likelihood,
    )

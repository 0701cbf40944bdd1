"""Groups that share all of the way to the one step that is learned from: the default for rewards without a gradient.

The rows of a root are one until step k, where fresh noise parts them; afterwards they are sampled without noise. The
policy gradients of all children are one cotangent at o_k, u = (c / (q D)) sum_g a_g eps_g, and one forward and backward
pass. `flow-grpo-fast` of the Flow-GRPO authors' code has the same shape with its own numbers; `tempflow` (arXiv
2508.04324) has several roots, each of which parts at the same step.
"""

import torch

from sdo_ray.backprop.transitions import Branching
from sdo_ray.policy_gradient.estimators.windows import count, steps_in, window
from sdo_ray.policy_gradient.plan import PolicyPlan
from sdo_ray.policy_gradient.registry import policy_estimator


@policy_estimator("group")
def group(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    update: int = 0,
    children: int = 8,
    seeds: int = 1,
    steps: int = 1,
    first: int = 0,
    last: int | None = None,
) -> PolicyPlan:
    """One stochastic step, or a few, drawn anew for each batch.

    Args:
        num_steps: N.
        generator: where the step is drawn from.
        update: not used.
        children: G, samples of one initial noise.
        seeds: initial noises of a prompt.
        steps: stochastic steps, one after the other; rows part at the first.
        first: the earliest that may be drawn.
        last: the latest, up to N-2.

    Raises:
        PlanError: an option out of range.
    """
    pool = steps_in(first, last, num_steps)
    kept = window(pool, steps, generator)
    branching = Branching({kept[0]: count("children", children, 2)})
    seeds = count("seeds", seeds, 1)
    return PolicyPlan("group", num_steps, kept, kept, branching, seeds, baseline="seed", pool=tuple(pool))


@policy_estimator("flow-grpo-fast")
def flow_grpo_fast(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    update: int = 0,
    children: int = 24,
    steps: int = 2,
) -> PolicyPlan:
    """Flow-GRPO-Fast: one trajectory to a random step, noise there makes the group; two steps learn.

    Args:
        num_steps: N; 10 as published.
        generator: where the steps are drawn from.
        update: not used.
        children: G.
        steps: stochastic ones, 1 or 2 as published.
    """
    plan = group(num_steps, generator=generator, children=children, steps=min(steps, num_steps - 1))
    return PolicyPlan(
        "flow-grpo-fast", num_steps, plan.kept, plan.kept, plan.branching, advantage="global-std", pool=plan.pool
    )


@policy_estimator("tempflow")
def tempflow(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    update: int = 0,
    seeds: int = 4,
    children: int = 6,
) -> PolicyPlan:
    """TempFlow: 4 initial noises, each parting into 6 at one step, which counts by its noise.

    Args:
        num_steps: N; 10 as published.
        generator: where the step is drawn from.
        update: not used.
        seeds: roots.
        children: of each.
    """
    plan = group(num_steps, generator=generator, children=children, seeds=seeds)
    return PolicyPlan(
        "tempflow",
        num_steps,
        plan.kept,
        plan.kept,
        plan.branching,
        seeds,
        kernel="sde",
        baseline="seed",
        weight="tempflow",
        pool=plan.pool,
    )

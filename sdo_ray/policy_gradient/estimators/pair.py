"""Finite differences: two samples that noise of opposite sign has parted say how the reward changes between them.

Notation
    z+, z-   final latents of the two;  R+, R-  their rewards;  dz = z+ - z-
    g        (R+ - R-) dz / |dz|^2, the reward's slope along dz, as an estimate of dR/dz_N

g is taken back to kept steps as a differentiable reward's gradient would be (`sdo`): no probabilities, so any solver
that noise can be put into, and several kept steps at once. The idea is FDFO's (arXiv 2603.12893).
"""

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.transitions import Branching
from sdo_ray.policy_gradient.estimators.windows import count, steps_in, window
from sdo_ray.policy_gradient.plan import PolicyPlan
from sdo_ray.policy_gradient.registry import policy_estimator


@policy_estimator("pair")
def pair(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    update: int = 0,
    pairs: int = 4,
    K: int = 1,
    first: int = 0,
    last: int | None = None,
) -> PolicyPlan:
    """Pairs of one initial noise that part at a drawn step.

    Args:
        num_steps: N.
        generator: where steps are drawn from.
        update: not used.
        pairs: of each prompt; all part at the same step.
        K: kept steps, drawn from the steps up to the one where the pairs part, or fewer where it has fewer before it:
            there the two are still one.
        first: the earliest step at which they may part.
        last: the latest, up to N-2.

    Raises:
        PlanError: an option out of range.
    """
    [split] = window(steps_in(first, last, num_steps), 1, generator)
    kept = draws.uniform(range(split + 1), min(count("K", K, 1), split + 1), generator)
    branching = Branching({split: 2 * count("pairs", pairs, 1)})
    return PolicyPlan(
        "pair", num_steps, (split,), tuple(kept), branching, mirrored=True, differences=True, baseline="seed"
    )

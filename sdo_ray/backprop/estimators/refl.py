"""ReFL: the reward of a late posterior mean ("ImageReward", arXiv 2304.05977, algorithm 1)."""

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.registry import estimator


@estimator("refl")
def refl(num_steps: int, *, generator: torch.Generator | None = None, late: int | None = None) -> BackpropPlan:
    """One of the last steps, uniformly; the reward sees the posterior mean there and the sampler stops.

    The authors' code draws among the last 10 of 40 steps, hence the default of a quarter. It then passes the step's
    index to the network as if it were its timestep, and takes the posterior mean with the timestep of the step before;
    here both are the step's own, as in the paper.

    Args:
        num_steps: N.
        generator: where the step is drawn from; None is torch's default.
        late: how many last steps to draw from, 1 .. N; None is N/4, at least 1.

    Raises:
        PlanError: `late` out of range.
    """
    draws.check_count("num_steps", num_steps, max(num_steps, 1))
    window = draws.check_count("late", max(1, num_steps // 4) if late is None else late, num_steps)
    k = draws.integer(num_steps - window, num_steps - 1, generator)
    return BackpropPlan("refl", num_steps, {k: StepGradient(1.0, 0.0)}, reward_at=k)

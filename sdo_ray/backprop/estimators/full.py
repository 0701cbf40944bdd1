"""Full backpropagation through the sampler: every step kept, every coupling 1. Exact, and memory grows with N."""

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.registry import estimator


@estimator("full")
def full(num_steps: int, *, generator: torch.Generator | None = None, checkpoint: bool = False) -> BackpropPlan:
    """Every step with scale 1 and coupling 1; nothing is drawn.

    Args:
        num_steps: N.
        generator: not used.
        checkpoint: see `BackpropPlan`; 4 N forward passes instead of 3 N, and the activations of one step.

    Raises:
        PlanError: checkpoint is no truth value.
    """
    draws.check_flag("checkpoint", checkpoint)
    draws.check_count("num_steps", num_steps, max(num_steps, 1))
    return BackpropPlan("full", num_steps, {i: StepGradient(1.0, 1.0) for i in range(num_steps)}, checkpoint=checkpoint)

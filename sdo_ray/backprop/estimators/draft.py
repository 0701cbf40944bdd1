"""DRaFT-K: backpropagate through the last K steps ("Directly Fine-Tuning Diffusion Models on Differentiable Rewards",
arXiv 2309.17400, section 4.1)."""

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.registry import estimator


@estimator("draft")
def draft(num_steps: int, *, generator: torch.Generator | None = None, K: int = 1) -> BackpropPlan:
    """The last K steps with coupling 1, the first of them 0: nothing before it has a graph.

    Args:
        num_steps: N.
        generator: not used.
        K: 1 .. N; N is full backpropagation, 1 the last step alone.

    Raises:
        PlanError: K out of range.
    """
    return BackpropPlan("draft", num_steps, last_steps(num_steps, K))


def last_steps(num_steps: int, K: int) -> dict[int, StepGradient]:
    """The last K steps, each coupled to the kept one before it."""
    draws.check_count("num_steps", num_steps, max(num_steps, 1))
    draws.check_count("K", K, num_steps)
    first = num_steps - K
    return {i: StepGradient(1.0, 0.0 if i == first else 1.0) for i in range(first, num_steps)}

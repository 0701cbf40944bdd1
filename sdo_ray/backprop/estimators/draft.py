"""DRaFT: backpropagate through the last steps ("Directly Fine-Tuning Diffusion Models on Differentiable Rewards",
arXiv 2309.17400, section 4: DRaFT-K and DRaFT-LV).

Notation
    N, K    sampling steps, kept steps;  n  re-noised copies
    z_N-1   latents before the last step, o their output;  xhat  the posterior mean there
"""

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.registry import estimator


@estimator("draft")
def draft(
    num_steps: int, *, generator: torch.Generator | None = None, K: int = 1, checkpoint: bool = False
) -> BackpropPlan:
    """DRaFT-K: the last K steps with coupling 1, the first of them 0, for nothing before it has a graph.

    Args:
        num_steps: N.
        generator: not used.
        K: 1 .. N; N is full backpropagation, 1 the last step alone.
        checkpoint: see `BackpropPlan`.

    Raises:
        PlanError: K out of range, or checkpoint is no truth value.
    """
    draws.check_flag("checkpoint", checkpoint)
    return BackpropPlan("draft", num_steps, last_steps(num_steps, K), checkpoint=checkpoint)


@estimator("draft-lv")
def draft_lv(num_steps: int, *, generator: torch.Generator | None = None, n: int = 2) -> BackpropPlan:
    """DRaFT-LV: the last step, averaged over its own latents and n re-noisings of its posterior mean.

    The paper evaluates the reward once more at every copy. Here all copies share the reward gradient of the sample,
    which leaves one reward call per update; the variance that the copies remove is that of do/dtheta. Memory holds the
    activations of n + 1 denoiser calls. The default n = 2 and the average over n + 1 terms follow the code of FlowBP
    (its `draft_lv`); the paper's own code is not public.

    Args:
        num_steps: N.
        generator: where the seed of the copies' noise comes from.
        n: copies, >= 1.

    Raises:
        PlanError: n out of range.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise PlanError("n", n, "an integer >= 1", "use estimator draft for no copies")
    steps = last_steps(num_steps, 1)
    return BackpropPlan("draft-lv", num_steps, steps, copies=n, seed=draws.integer(0, 2**31 - 1, generator))


def last_steps(num_steps: int, K: int) -> dict[int, StepGradient]:
    """The last K steps, each coupled to the kept one before it."""
    draws.check_count("num_steps", num_steps, max(num_steps, 1))
    draws.check_count("K", K, num_steps)
    first = num_steps - K
    return {i: StepGradient(1.0, 0.0 if i == first else 1.0) for i in range(first, num_steps)}

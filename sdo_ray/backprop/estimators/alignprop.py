"""AlignProp: backpropagate through a random number of last steps ("Aligning Text-to-Image Diffusion Models with Reward
Backpropagation", arXiv 2310.03739, randomized truncated backpropagation)."""

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.estimators.draft import last_steps
from sdo_ray.backprop.plan import BackpropPlan
from sdo_ray.backprop.registry import estimator


@estimator("alignprop")
def alignprop(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    K_min: int = 1,
    K_max: int | None = None,
    checkpoint: bool = False,
) -> BackpropPlan:
    """The last K steps fully coupled, K uniform in K_min .. K_max, drawn for each plan.

    The authors' code (`truncated_backprop_minmax = (0, 50)` of 50 steps) draws its threshold anew at every step of the
    loop, so that step i keeps its graph with probability (i + 1) / 51. Here K is drawn once per plan, as the paper
    describes, and K = 0 is left out, from which nothing is learned.

    Args:
        num_steps: N.
        generator: where K is drawn from; None is torch's default.
        K_min: 1 .. N.
        K_max: K_min .. N; None is N. It bounds the memory.
        checkpoint: see `BackpropPlan`; the authors' code checkpoints.

    Raises:
        PlanError: a bound out of range, or checkpoint is no truth value.
    """
    draws.check_flag("checkpoint", checkpoint)
    draws.check_count("num_steps", num_steps, max(num_steps, 1))
    upper = draws.check_count("K_max", num_steps if K_max is None else K_max, num_steps)
    lower = draws.check_count("K_min", K_min, upper)
    steps = last_steps(num_steps, draws.integer(lower, upper, generator))
    return BackpropPlan("alignprop", num_steps, steps, checkpoint=checkpoint)

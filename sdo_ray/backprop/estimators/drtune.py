"""DRTune: evenly spaced steps without nested gradient ("Deep Reward Supervisions for Tuning Text-to-Image Diffusion
Models", arXiv 2405.00760, algorithm 1).

Notation
    N, K   sampling steps, kept steps
    m      where sampling stops: the reward sees the posterior mean at step m, m = N - 1 - (0 .. M - 1)
"""

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.registry import estimator


@estimator("drtune")
def drtune(
    num_steps: int, *, generator: torch.Generator | None = None, K: int = 3, early_stop: float = 0.4
) -> BackpropPlan:
    """K steps a constant distance apart, offset drawn, up to a drawn early stop.

    The authors published no code. The spacing (m + 1) // K, the uniform offset, K = 3 and the share 0.4 are those of
    FlowBP's reimplementation.

    Args:
        num_steps: N.
        generator: where stop and offset are drawn from; None is torch's default.
        K: 1 .. N. If the sampler stops before K steps, all steps up to the stop are kept.
        early_stop: share of N in 0 .. 1: the stop is uniform among that many last steps. 0: the reward sees the sample.

    Raises:
        PlanError: an option out of range.
    """
    draws.check_count("num_steps", num_steps, max(num_steps, 1))
    draws.check_count("K", K, num_steps)
    window = round(draws.check_share("early_stop", early_stop) * num_steps)
    m = draws.integer(num_steps - window, num_steps - 1, generator) if window else num_steps - 1
    K = min(K, m + 1)
    distance = (m + 1) // K
    offset = draws.integer(0, m - (K - 1) * distance, generator)
    steps = {offset + i * distance: StepGradient(1.0, 0.0) for i in range(K)}
    return BackpropPlan("drtune", num_steps, steps, reward_at=m if window else None)

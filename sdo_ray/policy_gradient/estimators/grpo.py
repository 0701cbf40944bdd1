"""Policy gradients of many steps of each sample: Flow-GRPO, DanceGRPO, MixGRPO.

Defaults are the authors'. One update is made of each batch of samples, so nothing is ever clipped.
"""

import torch

from sdo_ray.backprop import PlanError, draws
from sdo_ray.backprop.transitions import Branching
from sdo_ray.policy_gradient.estimators.windows import count, steps_in
from sdo_ray.policy_gradient.plan import PolicyPlan
from sdo_ray.policy_gradient.registry import policy_estimator


@policy_estimator("flow-grpo")
def flow_grpo(
    num_steps: int, *, generator: torch.Generator | None = None, update: int = 0, samples: int = 24
) -> PolicyPlan:
    """Flow-GRPO (arXiv 2505.05470): initial noises of their own, all steps but the last stochastic and learned from.

    Args:
        num_steps: N; 10 as published.
        generator: not used.
        update: not used.
        samples: G.
    """
    steps = tuple(range(num_steps - 1))
    seeds = count("samples", samples, 2)
    return PolicyPlan("flow-grpo", num_steps, steps, steps, seeds=seeds, kernel="sde", advantage="global-std")


@policy_estimator("dance-grpo")
def dance_grpo(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    update: int = 0,
    samples: int = 12,
    fraction: float = 0.6,
) -> PolicyPlan:
    """DanceGRPO (arXiv 2505.07818): one initial noise for a group, all steps stochastic, a random share learned from.

    The authors draw the steps for each sample; here they are drawn for each batch. `kernel: ddim` is theirs for models
    that are not of flow matching.

    Args:
        num_steps: N; 16 as published for FLUX, 50 for SD.
        generator: where the steps are drawn from.
        update: not used.
        samples: G; 12 for FLUX, 16 for SD.
        fraction: of the steps that are learned from, above 0 and up to 1.
    """
    steps = range(num_steps - 1)
    if draws.check_share("fraction", fraction) == 0:
        raise PlanError("fraction", fraction, "a number above 0 and up to 1", "raise fraction")
    kept = tuple(draws.uniform(steps, max(round(fraction * len(steps)), 1), generator))
    branching = Branching({0: count("samples", samples, 2)})
    return PolicyPlan("dance-grpo", num_steps, tuple(steps), kept, branching, kernel="dance", advantage="dance")


@policy_estimator("mix-grpo")
def mix_grpo(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    update: int = 0,
    samples: int = 12,
    window: int = 4,
    every: int = 25,
    trimmed: float = 0.0,
) -> PolicyPlan:
    """MixGRPO (arXiv 2507.21802): a window of stochastic steps that moves through the sampling, no noise elsewhere.

    Args:
        num_steps: N; 25 as published.
        generator: not used.
        update: the number of the update, which says where the window is.
        samples: G, of one initial noise.
        window: its length.
        every: updates after which it moves on by one step; from the end it goes back to the start.
        trimmed: share of a group's lowest scores that mean and deviation are taken without (`trimmed_ratio`).
    """
    steps = steps_in(0, None, num_steps)
    size = draws.check_count("window", window, len(steps))
    start = update // count("every", every, 1) % (len(steps) - size + 1)
    kept = tuple(range(start, start + size))
    branching = Branching({start: count("samples", samples, 2)})
    return PolicyPlan("mix-grpo", num_steps, kept, kept, branching, kernel="sde", advantage="mix", trimmed=trimmed)

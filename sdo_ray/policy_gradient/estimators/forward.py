"""Forward-process methods: samples of any solver, noised again to levels of the sampling; see `..forward`."""

import torch

from sdo_ray.backprop import PlanError, draws
from sdo_ray.policy_gradient.averages import Decay, check_decay
from sdo_ray.policy_gradient.estimators.windows import count
from sdo_ray.policy_gradient.plan import Forward, PolicyPlan
from sdo_ray.policy_gradient.registry import policy_estimator


@policy_estimator("nft")
def nft(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    update: int = 0,
    samples: int = 24,
    b: float = 1.0,
    fraction: float = 0.99,
    decay: Decay = "slow",
) -> PolicyPlan:
    """DiffusionNFT (arXiv 2509.16117): sampled by an average of the policies, from which the newest is moved.

    Where guidance is used, the guided output is what learns; the authors sample without.

    Args:
        num_steps: N; 10 as published.
        generator: where the steps are drawn from.
        update: not used.
        samples: G, of initial noises of their own.
        b: how far the two policies that are compared lie on both sides of the average; 1 as published, 0.1 for OCR and
            several rewards.
        fraction: of the N levels, rounded down, that each sample is noised to.
        decay: of the average, see `averages.DECAYS`. The authors make several updates of each batch; of one, "slow"
            leaves the two policies next to equal for the first updates, and 0.9 does not.

    Raises:
        PlanError: an option out of range.
    """
    if draws.check_share("fraction", fraction) == 0:
        raise PlanError("fraction", fraction, "a number above 0 and up to 1", "raise fraction")
    kept = tuple(draws.uniform(range(num_steps), max(int(fraction * num_steps), 1), generator))
    forward = Forward("nft", check_decay(decay), b=b)
    seeds = count("samples", samples, 2)
    return PolicyPlan("nft", num_steps, (), kept, seeds=seeds, advantage="global-std", output_kl=1e-4, forward=forward)


@policy_estimator("awm")
def awm(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    update: int = 0,
    samples: int = 24,
    times: int = 6,
    power: float = 0.25,
    pull: float = 1.0,
    decay: Decay = 0.3,
) -> PolicyPlan:
    """Advantage-weighted matching (arXiv 2509.25050): samples better than their group are denoised to, others not.

    Args:
        num_steps: N; 14 as published.
        generator: where the steps are drawn from.
        update: not used.
        samples: G, of initial noises of their own.
        times: levels that each sample is noised to, one of each of as many strata of the steps 1 .. 0.9 N.
        power: of the distance, above 0; 1 is the distance itself.
        pull: weight of mean (o - o_avg)^2. Without it the model is said to collapse.
        decay: of the average of the policies.

    Raises:
        PlanError: an option out of range.
    """
    last = max(int(0.9 * num_steps), 1)
    strata = draws.stratified(last, draws.check_count("times", times, last), generator)
    kept = tuple(min(step + 1, num_steps - 1) for step, _ in strata)
    forward = Forward("awm", check_decay(decay), power=power, pull=pull)
    seeds = count("samples", samples, 2)
    return PolicyPlan("awm", num_steps, (), kept, seeds=seeds, advantage="global-std", output_kl=1e-3, forward=forward)

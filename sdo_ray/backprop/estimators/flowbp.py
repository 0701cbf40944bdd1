"""FlowBP-Sparse and FlowBP-Bridge ("Exploring the Design Space of Reward Backpropagation for Flow Matching", arXiv
2606.11075); the settings and draws are those of the authors' code.

Notation
    N, K     sampling steps, kept steps A
    w_i      dz_N/do_i; for a flow-matching Euler sampler the length of step i in sigma
    r        rescaling: s = 1 + r (sum_i |w_i| / sum_{i in A} |w_i| - 1), the same for all kept steps
    bias     steps are drawn one after the other with probability proportional to (place + 1)^bias
    j        the bridge: gradient passes from its input to the kept steps before it, times alpha
"""

from collections.abc import Sequence

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.registry import estimator
from sdo_ray.backprop.solver import SolverWeights

MAX_BIAS = 16.0


@estimator("flowbp-sparse")
def flowbp_sparse(
    num_steps: int,
    *,
    weights: SolverWeights,
    generator: torch.Generator | None = None,
    K: int = 4,
    bias: float = 1.0,
    rescale: float = 0.5,
) -> BackpropPlan:
    """K late-biased steps, uncoupled, rescaled towards the weight of the whole trajectory.

    Defaults are the authors' for SD3.5-M (for FLUX.1: K = 3, bias = 2, rescale = 1); of guidance the prompt's branch
    alone learns.

    Args:
        num_steps: N.
        weights: of the scheduler.
        generator: where the steps are drawn from; None is torch's default.
        K: 1 .. N.
        bias: 0 .. 16; 0 is uniform.
        rescale: r in 0 .. 1.

    Raises:
        PlanError: an option out of range.
    """
    draws.check_count("K", K, num_steps)
    kept = draws.late_biased(range(num_steps), K, draws.check_share("bias", bias, MAX_BIAS), generator)
    s = _rescaling(weights, kept, draws.check_share("rescale", rescale))
    return BackpropPlan("flowbp-sparse", num_steps, {i: StepGradient(s, 0.0) for i in kept}, guidance="prompt")


@estimator("flowbp-bridge")
def flowbp_bridge(
    num_steps: int,
    *,
    weights: SolverWeights,
    generator: torch.Generator | None = None,
    K: int = 5,
    bias: float = 4.0,
    rescale: float = 0.0,
    alpha: float = 0.5,
) -> BackpropPlan:
    """K steps on both sides of a drawn step j, which is among them and coupled by alpha to those before.

    j is the later of two distinct uniform steps, as in the authors' code. K is shared in proportion to the lengths of
    the two sides, at least one on each. Defaults are the authors' for SD3.5-M; of guidance the prompt's branch alone
    learns.

    Args:
        num_steps: N >= 2.
        weights: of the scheduler.
        generator: where j and the steps are drawn from; None is torch's default.
        K: 2 .. N.
        bias: 0 .. 16; 0 is uniform on each side.
        rescale: r in 0 .. 1.
        alpha: 0 .. 1.

    Raises:
        PlanError: an option out of range.
    """
    if draws.check_count("K", K, num_steps) < 2:
        raise PlanError("K", K, f"an integer in 2 .. {num_steps}", "a bridge has a kept step on each side")
    bias = draws.check_share("bias", bias, MAX_BIAS)
    j = draws.uniform(range(num_steps), 2, generator)[1]
    before = min(max(round(K * j / num_steps), 1, K - (num_steps - j)), j, K - 1)
    kept = [*draws.late_biased(range(j), before, bias, generator), j]
    if before + 1 < K:
        kept += draws.late_biased(range(j + 1, num_steps), K - before - 1, bias, generator)
    s = _rescaling(weights, kept, draws.check_share("rescale", rescale))
    coupling = {j: draws.check_share("alpha", alpha)}
    return BackpropPlan(
        "flowbp-bridge", num_steps, {i: StepGradient(s, coupling.get(i, 0.0)) for i in kept}, guidance="prompt"
    )


def _rescaling(weights: SolverWeights, kept: Sequence[int], r: float) -> float:
    w = weights.w.abs()
    active = float(w[list(kept)].sum())
    # Kept steps without any weight learn nothing, whatever they are scaled by.
    return 1.0 + r * (float(w.sum()) / active - 1.0) if active else 1.0

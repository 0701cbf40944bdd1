"""LeapAlign: two leaps instead of the trajectory ("LeapAlign: Post-Training Flow Matching Models at Any Generation Step
by Building Two-Step Trajectories", arXiv 2604.15311).

Notation
    k < j    the two kept steps;  alpha  how much gradient passes from step j's input to step k
    w_i      dz_N/do_i
    leaps    z_k -> z_j -> z_N, each by one output:  z_j ~ z_k + (w_k + .. + w_{j-1}) o_k,
                                                     z_N ~ z_j + (w_j + .. + w_{N-1}) o_j
so that s_k w_k = w_k + .. + w_{j-1} and s_j w_j = w_j + .. + w_{N-1}. For a flow-matching Euler sampler w_i is the
length of step i in sigma and this is the paper's construction; for other solvers it is its extension by weights.
"""

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.registry import estimator
from sdo_ray.backprop.solver import SolverWeights


@estimator("leapalign")
def leapalign(
    num_steps: int, *, weights: SolverWeights, generator: torch.Generator | None = None, alpha: float = 0.3
) -> BackpropPlan:
    """Two distinct steps, uniform, scaled to leaps, the later one coupled by alpha.

    Not included is the paper's weighting of samples by how close the leaps end to the true latents: it is a weight on
    the reward, not on the gradient path. alpha = 0.3 is the value in FlowBP's configurations of LeapAlign; the paper's
    own code was not found.

    Args:
        num_steps: N >= 2.
        weights: of the scheduler, all of one sign.
        generator: where k and j are drawn from; None is torch's default.
        alpha: 0 .. 1.

    Raises:
        PlanError: alpha out of range, N < 2, or weights of different signs.
    """
    if num_steps < 2:
        raise PlanError("num_steps", num_steps, "an integer >= 2", "two leaps need two steps")
    w = weights.of_one_sign().w
    k, j = draws.uniform(range(num_steps), 2, generator)
    steps = {
        k: StepGradient(float(w[k:j].sum() / w[k]), 0.0),
        j: StepGradient(float(w[j:].sum() / w[j]), draws.check_share("alpha", alpha)),
    }
    return BackpropPlan("leapalign", num_steps, steps)

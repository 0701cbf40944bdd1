"""FlowBP-Lagrange: leaps by quadrature over a few support steps ("Exploring the Design Space of Reward Backpropagation
for Flow Matching", arXiv 2606.11075; settings and draws from the authors' code).

Notation
    k < j     two drawn steps: leaps z_k -> z_j -> z_N
    w_i       dz_N/do_i, all of one sign
    tau_i     w_0 + .. + w_{i-1}: time, measured by how much the solver weighs it; for flow-matching Euler sigma up to a
              shift, and the quadrature does not change when its variable is shifted
    S         support of a leap: up to `order` steps evenly spaced over it, its first among them
    l_i       Lagrange polynomials on {tau_i, i in S};  q_i = integral of l_i over the leap, so that
              z_j ~ z_k + sum_{i in S} q_i o_i
    kept      the first `active` steps of each support, with s_i = q_i / w_i, and times `support_scale` unless the first
    alpha     coupling of step j to the kept ones before it
"""

import math
from collections.abc import Sequence

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.registry import estimator
from sdo_ray.backprop.solver import SolverWeights

# Concentrations of (after j, between k and j, before k), and the share of the steps, the last ones, that j lies among.
CONCENTRATION = (2.5, 6.0, 2.0)
LATEST = 0.4


@estimator("flowbp-lagrange")
def flowbp_lagrange(
    num_steps: int,
    *,
    weights: SolverWeights,
    generator: torch.Generator | None = None,
    alpha: float = 0.1,
    order: int = 3,
    active: int = 2,
    support_scale: float = 0.25,
) -> BackpropPlan:
    """Quadrature over two leaps whose ends are drawn so that j is late and the first leap long.

    Defaults and the draw are the authors' for SD3.5-M: lengths after j, between, and before k from a Dirichlet(2.5, 6,
    2), j among the last 10 of 25 steps and not the very last; of guidance the prompt's branch alone learns. Their
    weighting of samples by how close the leaps end to the true latents, a weight on the reward, is not included.

    Args:
        num_steps: N >= 3.
        weights: of the scheduler, all of one sign.
        generator: where the leaps are drawn from; None is torch's default.
        alpha: 0 .. 1.
        order: support steps of a leap, 1 .. N.
        active: kept ones among them, 1 .. order.
        support_scale: 0 .. 1.

    Raises:
        PlanError: an option out of range, N < 3, or weights of different signs.
    """
    if num_steps < 3:
        raise PlanError("num_steps", num_steps, "an integer >= 3", "take more sampling steps")
    draws.check_count("order", order, num_steps)
    if draws.check_count("active", active, num_steps) > order:
        raise PlanError("active", active, f"an integer in 1 .. {order} (order)", "lower active or raise order")
    alpha, support_scale = draws.check_share("alpha", alpha), draws.check_share("support_scale", support_scale)
    w = weights.of_one_sign().w

    after, between, _ = draws.segments(num_steps, CONCENTRATION, generator)
    # `after` steps come after j itself, and so at most all but one of the last ones.
    j = num_steps - 1 - min(after, max(1, math.floor(LATEST * num_steps) - 1))
    k = max(0, j - between)
    steps: dict[int, StepGradient] = {}
    for start, end in ((k, j), (j, num_steps)):
        support = support_steps(start, end, order)
        for i, q_i in list(zip(support, quadrature(w, support, start, end), strict=True))[:active]:
            scale = q_i / float(w[i]) * (1.0 if i == start else support_scale)
            steps[i] = StepGradient(scale, alpha if i == j else 0.0)
    return BackpropPlan("flowbp-lagrange", num_steps, steps, guidance="prompt")


def support_steps(start: int, end: int, order: int) -> list[int]:
    """Up to `order` steps evenly spaced over start .. end - 1, the first and, from order 2 on, the last among them."""
    count = min(order, end - start)
    return sorted({start + p for p in torch.linspace(0, end - start - 1, count).round().int().tolist()})


def quadrature(w: torch.Tensor, support: Sequence[int], start: int, end: int) -> list[float]:
    """q_i, the integral over the leap start .. end of the Lagrange polynomial of each support step, in tau."""
    tau = torch.cat([w.new_zeros(1), w.cumsum(0)])
    # Gauss-Legendre with as many nodes as support steps is exact for their polynomials; centred for conditioning.
    mid, half = (tau[start] + tau[end]) / 2, (tau[end] - tau[start]) / 2
    nodes, gauss = _gauss_legendre(len(support))
    places = [(float(tau[i]) - float(mid)) / float(half) for i in support]
    return [
        float(half) * sum(g * _lagrange(places, m, x) for x, g in zip(nodes, gauss, strict=True))
        for m in range(len(support))
    ]


def _lagrange(places: Sequence[float], m: int, x: float) -> float:
    return math.prod((x - p) / (places[m] - p) for i, p in enumerate(places) if i != m)


def _gauss_legendre(n: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on -1 .. 1 (Golub and Welsch: eigenvalues of the Jacobi matrix)."""
    i = torch.arange(1, n, dtype=torch.float64)
    off = i / (4 * i**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes.tolist(), (2 * vectors[0] ** 2).tolist()

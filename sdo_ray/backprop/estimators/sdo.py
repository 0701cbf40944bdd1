"""Shortcut Diffusion Optimization: keep the graph of a few single steps ("You Only Look One Step", arXiv 2505.07477).

Notation
    N, K   sampling steps, kept steps
    s_k    scale of a kept step: 1, or 1 / p_k with `unbiased`, p_k the probability that k is drawn
    w_k    dz_N/do_k;  g = dR/dz_N;  o_k  denoiser output at step k

    dR/dtheta ~ sum over kept k of s_k w_k (do_k/dtheta)^T g

With 1 / p_k its expectation is the sum of this term over all N steps. Left out is how o_k changes later outputs.
"""

from collections.abc import Sequence

import torch

from sdo_ray.backprop import draws
from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.registry import estimator

DRAWS = ("uniform", "early", "late", "stratified", "fixed")


@estimator("sdo")
def sdo(
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    K: int = 1,
    unbiased: bool = False,
    draw: str = "uniform",
    at: Sequence[int] | None = None,
) -> BackpropPlan:
    """Keep K steps, drawn anew for each plan, none coupled to another.

    Args:
        num_steps: N.
        generator: where the draw comes from; None is torch's default.
        K: kept steps, 1 .. N (1 .. half of N for `early` and `late`).
        unbiased: scale each kept step by 1 / p_k, N/K for the uniform draw; needs a draw that can reach every step.
        draw: `uniform` over all steps; `early` or `late`, uniform over the first or last half (rounded up);
            `stratified`, one from each of K equal stretches; `fixed`, the steps in `at`.
        at: the K steps of `fixed`; with another draw, None.

    Raises:
        PlanError: an option out of range, or options that exclude each other.
    """
    draws.check_count("num_steps", num_steps, max(num_steps, 1))
    draws.check_count("K", K, num_steps)
    if draw not in DRAWS:
        raise PlanError("draw", draw, ", ".join(DRAWS), "use a draw from the list")
    if (at is not None) != (draw == "fixed"):
        raise PlanError("at", at, "a list of steps with draw 'fixed', None with any other", "set both or neither")
    if unbiased and draw not in ("uniform", "stratified"):
        legal = f"False with draw {draw!r}, which leaves steps out"
        raise PlanError("unbiased", True, legal, "draw uniform or stratified")

    half = (num_steps + 1) // 2
    if draw == "stratified":
        chosen = draws.stratified(num_steps, K, generator)
        return _plan(num_steps, {k: float(n) if unbiased else 1.0 for k, n in chosen})
    if draw == "fixed":
        return _plan(num_steps, dict.fromkeys(_fixed(at or (), K, num_steps), 1.0))
    population = {"uniform": range(num_steps), "early": range(half), "late": range(num_steps - half, num_steps)}[draw]
    draws.check_count("K", K, len(population))
    s_k = num_steps / K if unbiased else 1.0
    return _plan(num_steps, dict.fromkeys(draws.uniform(population, K, generator), s_k))


def _fixed(at: Sequence[int], K: int, num_steps: int) -> list[int]:
    if len(set(at)) != K or not all(isinstance(k, int) and 0 <= k < num_steps for k in at):
        raise PlanError("at", list(at), f"K = {K} different steps in 0 .. {num_steps - 1}", "make K and at agree")
    return list(at)


def _plan(num_steps: int, scales: dict[int, float]) -> BackpropPlan:
    return BackpropPlan("sdo", num_steps, {k: StepGradient(scale=s_k, coupling=0.0) for k, s_k in scales.items()})

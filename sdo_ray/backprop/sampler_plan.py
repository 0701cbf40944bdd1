"""The plan of a pipeline call: an estimator's, on the steps that its scheduler takes.

Notation
    n    `num_inference_steps`;  N  calls of `scheduler.step`: n for most, nearly 2 n for second-order schedulers
    w_i  dz_N/do_i. Where it is 0 (the step to a midpoint, for example) o_i counts through later outputs alone, and step
         i, kept by itself, has nothing to learn from.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.plan import BackpropPlan
from sdo_ray.backprop.registry import check_plan, make_plan, needs_weights
from sdo_ray.backprop.solver import SolverWeights, solver_weights, timesteps_of


def sampler_plan(
    scheduler: Any,
    num_inference_steps: int | None,
    name: str,
    *,
    generator: torch.Generator | None = None,
    **options: Any,
) -> BackpropPlan:
    """Make the plan of one update as `make_plan` does, for N steps; one of single steps keeps those with w_i != 0 only.

    Args:
        scheduler: the pipeline's; it is not touched. One that `solver_weights` cannot read is taken to make n steps,
            all of which count.
        num_inference_steps: n; None for a scheduler with the timesteps of the call, from `called_scheduler`. Pipelines
            that pass `sigmas` or `mu` to their scheduler have other weights than n alone says.
        name: a registered estimator or an import path.
        generator: where random draws come from; None is torch's default.
        options: the estimator's own. Its num_steps, and with it the steps that an option names, are those with w_i != 0
            for a plan of single steps, all N for one that couples them.

    Raises:
        PlanError: as `make_plan`; or the estimator needs weights that cannot be read.
    """
    weights = _readable(scheduler, num_inference_steps, needs_weights(name))
    if weights is None:
        num_steps = len(timesteps_of(scheduler)) if num_inference_steps is None else num_inference_steps
        return make_plan(name, num_steps, generator=generator, **options)
    places = [i for i, w_i in enumerate(weights.w.tolist()) if w_i]
    counting = SolverWeights(a=weights.a, w=weights.w[places])
    plan = make_plan(name, len(places), generator=generator, weights=counting, **options)
    if len(places) == weights.num_steps:
        return plan
    if plan.is_of_single_calls:
        return _spread(plan, places, weights.num_steps)
    return make_plan(name, weights.num_steps, generator=generator, weights=weights, **options)


def check_sampler_plan(
    scheduler: Any, num_inference_steps: int, name: str, options: Mapping[str, Any], draws: int = 16
) -> list[BackpropPlan]:
    """Refuse what `sampler_plan` would refuse for the estimator's name or options; see `check_plan`."""
    # What the pipeline will pass follows from the size of its images; which steps count does not depend on it.
    shift = {"mu": scheduler.config.base_shift} if scheduler.config.get("use_dynamic_shifting", False) else {}
    weights = _readable(scheduler, num_inference_steps, False, **shift)
    return check_plan(name, num_inference_steps if weights is None else int(weights.w.count_nonzero()), options, draws)


def _readable(scheduler: Any, num_inference_steps: int | None, needed: bool, **timesteps: Any) -> SolverWeights | None:
    try:
        return solver_weights(scheduler, num_inference_steps, **timesteps)
    except PlanError:
        if needed:
            raise
        return None


def _spread(plan: BackpropPlan, places: list[int], num_steps: int) -> BackpropPlan:
    """The plan with its step j at places[j] of num_steps."""
    return replace(
        plan,
        num_steps=num_steps,
        steps={places[j]: step for j, step in plan.steps.items()},
        reward_at=None if plan.reward_at is None else places[plan.reward_at],
    )

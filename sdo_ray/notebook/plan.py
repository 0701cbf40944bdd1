"""The plan of a call, made from the pipeline that will be called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sdo_ray import backprop
from sdo_ray.backprop import BackpropPlan, PlanError, called_scheduler, sampler_plan


def make_plan(
    name: str,
    sampler: Any,
    num_inference_steps: int | None = None,
    *,
    call: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
    **options: Any,
) -> BackpropPlan:
    """Make the plan of one update; plans that draw steps draw anew at each call.

    Args:
        name: an estimator of docs/method.md, or an import path "package.module:function".
        sampler: the pipeline that will be called. Its scheduler says how many steps it takes (Heun's takes nearly twice
            as many), which of them count, and by which weights, for the estimators that want them; it is asked as the
            pipeline sets it, so that one with a schedule of its own (FLUX, Qwen-Image) is right. That costs encoding a
            prompt. A scheduler alone is taken as it is; a number is that of the steps it takes, for estimators that
            need no weights.
        num_inference_steps: of the call; None: the pipeline's default.
        call: its other arguments that change the schedule or that it cannot do without, such as `height`, `width` or
            `image`.
        generator: where random draws come from, a CPU generator; None is torch's default.
        options: the estimator's own, named as in docs/method.md.

    Returns:
        For `differentiable_sample(pipeline, plan, num_inference_steps=..., ...)`.

    Raises:
        PlanError: unknown name or option, an option out of range, a scheduler whose weights cannot be read, or a number
            where they are needed.
        TraceError: the pipeline could not be called so.
    """
    if isinstance(sampler, int):
        if num_inference_steps is not None or call is not None:
            raise PlanError("sampler", sampler, "a pipeline or a scheduler, where a call is given", "pass the pipeline")
        if backprop.needs_weights(name) and "weights" not in options:
            fix = f"make_plan({name!r}, pipe, {sampler})"
            raise PlanError("sampler", sampler, f"a pipeline or a scheduler: {name} weighs steps by the solver", fix)
        return backprop.make_plan(name, sampler, generator=generator, **options)
    if hasattr(sampler, "set_timesteps"):
        return sampler_plan(sampler, num_inference_steps, name, generator=generator, **options)
    arguments: dict[str, Any] = {"prompt": "a"} | dict(call or {})
    if num_inference_steps is not None:
        arguments["num_inference_steps"] = num_inference_steps
    return sampler_plan(called_scheduler(sampler, **arguments), None, name, generator=generator, **options)

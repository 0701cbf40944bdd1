"""Whether a pipeline can be called, and its gradient estimated, the way a run does it."""

from __future__ import annotations

import inspect

from sdo_ray.backprop import BackpropPlan, check_plan, check_sampler_plan
from sdo_ray.models.load import load_scheduler, pipeline_class
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.settings import SettingsError

OURS = {"prompt", "generator", "num_inference_steps", "guidance_scale", "output_type", "return_dict"}
"""Arguments of the pipeline's call that the run itself gives."""


def check_call(base: str, sampling: SamplingSettings, setting: str) -> None:
    """Refuse a pipeline that makes no images from prompts, and options that it does not take.

    Args:
        base: the model's reference.
        sampling: how it is called.
        setting: where the model was named, for the error.

    Raises:
        SettingsError: the one or the other, or the model's configuration cannot be read.
    """
    kind = pipeline_class(base)
    arguments = inspect.signature(kind.__call__).parameters.keys()
    if missing := OURS - arguments - {"return_dict"}:
        raise SettingsError(
            f"{setting}: {base!r} is a {kind.__name__}, which cannot be called with "
            f"{', '.join(sorted(missing))}; choose a text-to-image pipeline."
        )
    legal = sorted(arguments - OURS - {"self", "args", "kwargs"})
    if unknown := [option for option in sampling.options if option not in legal]:
        raise SettingsError(
            f"sampling.options: {kind.__name__} takes no {', '.join(unknown)} here; it takes {', '.join(legal)}."
        )


def check_estimator(plan: PlanSettings, sampling: SamplingSettings, base: str | None = None) -> list[BackpropPlan]:
    """Refuse an estimator that there is not, or options that it cannot have.

    Args:
        plan: the estimator.
        sampling: how the pipeline is called.
        base: the model's reference, whose scheduler may take other than `num_inference_steps` steps; None if it cannot
            be read.

    Returns:
        Plans as they may come.

    Raises:
        SettingsError: what is wrong.
    """
    try:
        if base is None:
            return check_plan(plan.name, sampling.num_inference_steps, plan.options)
        return check_sampler_plan(load_scheduler(base), sampling.num_inference_steps, plan.name, plan.options)
    except ValueError as error:
        raise SettingsError(f"plan: {error}") from None
    except TypeError as error:
        raise SettingsError(
            f"plan.name: got {plan.name!r}, which is no function (num_steps, *, generator, ...) "
            f"-> BackpropPlan: {error}."
        ) from None

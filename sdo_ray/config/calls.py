"""Whether a pipeline can be called, and its gradient estimated, the way a run does it."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from diffusers.utils import is_ftfy_available

from rewards.modality import Made
from sdo_ray.backprop import (
    BackpropPlan,
    PlanError,
    check_plan,
    check_sampler_plan,
    option_names,
    solver_weights,
)
from sdo_ray.backprop.transitions import step_levels, transitions
from sdo_ray.media.modality import made_by
from sdo_ray.models.files import check_files
from sdo_ray.models.load import check_base, check_named, load_index, load_scheduler, pipeline_class
from sdo_ray.models.skeletons import component_classes, is_network
from sdo_ray.policy_gradient import Decay, PolicyPlan, check_policy_plan, policy_option_names
from sdo_ray.rollout.preparation import check_decoding
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.settings import Problem, Problems, SettingsError, under

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

OURS = {"prompt", "generator", "num_inference_steps", "guidance_scale", "output_type", "return_dict"}
"""Arguments of the pipeline's call that the run itself gives."""
SIZES = ("height", "width", "num_frames")
_NEEDS_BOTH = re.compile(r"if not height or not width:")
"""How pipelines read that replace a size of which one half is not given."""


def check_pipeline(base: str) -> type[DiffusionPipeline]:
    """Refuse a pipeline that makes no images from prompts.

    Returns:
        Its class.

    Raises:
        SettingsError: it is one of those, or the model's configuration cannot be read.
    """
    kind = pipeline_class(base)
    if missing := OURS - inspect.signature(kind.__call__).parameters.keys() - {"return_dict"}:
        got = f"{base!r} is a {kind.__name__}, which cannot be called with {', '.join(sorted(missing))}"
        raise SettingsError(Problem("base", got, fix="choose a text-to-image pipeline"))
    if not is_ftfy_available() and hasattr(sys.modules[kind.__module__], "basic_clean"):
        got = f"a {kind.__name__} cleans its prompts with the package ftfy, which is not installed"
        raise SettingsError(Problem("base", got, fix="`pip install ftfy`, here and on the workers"))
    return kind


def made_if_known(base: str) -> Made:
    """What a base model makes; anything, of one that cannot be read, which the check of the model says."""
    try:
        return made_by(base)
    except SettingsError:
        return Made()


def takes_guidance(pipeline: type[DiffusionPipeline]) -> bool:
    """Whether a pipeline's call takes a scale of classifier-free guidance."""
    taken = inspect.signature(pipeline.__call__).parameters
    return "guidance_scale" in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values())


def check_options(pipeline: type[DiffusionPipeline], sampling: SamplingSettings) -> None:
    """Refuse options that a pipeline's call does not take, or that the run itself gives.

    Raises:
        SettingsError: which ones.
    """
    taken = inspect.signature(pipeline.__call__).parameters
    if sampling.guidance_scale is not None and not takes_guidance(pipeline):
        got = f"got {sampling.guidance_scale:g}, and the call of a {pipeline.__name__} takes none"
        raise SettingsError(
            Problem("sampling.guidance_scale", got, fix="give null: it guides in a way of its own, if at all")
        )
    legal = sorted(taken.keys() - OURS - {"self", "args", "kwargs"})
    if unknown := [option for option in sampling.options if option not in legal]:
        raise SettingsError(
            Problem(
                "sampling.options",
                f"{pipeline.__name__} takes no {', '.join(unknown)} here",
                f"it takes {', '.join(legal)}",
                "remove or rename it",
            )
        )
    _check_sizes(pipeline, sampling.options)


def _check_sizes(pipeline: type[DiffusionPipeline], options: Mapping[str, Any]) -> None:
    with Problems() as problems:
        for name in SIZES:
            value = options.get(name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                got = f"got {value!r} ({type(value).__name__})"
                problems.add(Problem(f"sampling.options.{name}", got, "it is a whole number from 1 on"))
        given = [name for name in ("height", "width") if options.get(name) is not None]
        if len(given) == 1 and _takes_its_own_size_for_both(pipeline):
            got = f"given alone, and a {pipeline.__name__} then takes its own size for both"
            fix = f"give {'width' if given == ['height'] else 'height'} too"
            problems.add(Problem(f"sampling.options.{given[0]}", got, fix=fix))


def _takes_its_own_size_for_both(pipeline: type[DiffusionPipeline]) -> bool:
    try:
        return _NEEDS_BOTH.search(inspect.getsource(pipeline.__call__)) is not None
    except (OSError, TypeError):  # there is no source
        return False


def check_inputs(pipeline: type[DiffusionPipeline], inputs: Iterable[str], sampling: SamplingSettings) -> None:
    """Refuse arguments that are to come from columns, and that a pipeline's call does not take or is given anyway.

    Args:
        pipeline: which is called.
        inputs: names of the arguments.
        sampling: how else it is called.

    Raises:
        SettingsError: which ones.
    """
    taken = inspect.signature(pipeline.__call__).parameters
    with Problems() as problems:
        for argument in inputs:
            if argument not in taken:
                problems.add(Problem("", f"{pipeline.__name__} takes no {argument!r}", fix="name one that it takes"))
            if argument in OURS or argument in sampling.options:
                problems.add(Problem("", f"{argument!r} is given anyway", fix="give it once"))


def check_model(base: str, sampling: SamplingSettings, types: Mapping[str, str]) -> type[DiffusionPipeline]:
    """Refuse a model that `model.base` cannot name, that cannot be called so, or lacks a component of `model.dtypes`.

    Returns:
        The class of its pipeline.

    Raises:
        SettingsError: see `check_base`, `check_pipeline`, `check_files`, `check_types`, `check_options` and
            `check_decoding`.
    """
    with under("model"):
        check_base(base)
        pipeline = check_pipeline(base)
        check_files(base)
        check_types(base, types)
    check_options(pipeline, sampling)
    check_decoding(base, sampling.decode)
    return pipeline


def check_types(base: str, types: Mapping[str, str]) -> None:
    """Refuse a type of a component that a base model has not.

    Raises:
        SettingsError: of `dtypes`; see `check_base`.
    """
    if types:
        classes = component_classes(load_index(base))
        check_named("dtypes", types, [name for name, kind in classes.items() if is_network(kind)], base)


def check_estimator(
    plan: PlanSettings,
    sampling: SamplingSettings,
    setting: str,
    base: str | None = None,
) -> list[BackpropPlan]:
    """Refuse an estimator that there is not, or options that it cannot have.

    Args:
        plan: the estimator.
        sampling: how the pipeline is called.
        setting: where the estimator was named, for the error.
        base: the model's reference, whose scheduler may take other than `num_inference_steps` steps; None if it cannot
            be read.

    Returns:
        Plans as they may come.

    Raises:
        SettingsError: what is wrong with it, or with the model's scheduler.
    """
    if plan.is_policy_gradient and "eta" in sampling.options:
        got = f"got {sampling.options['eta']}, but the steps' noise is that of plan {plan.name!r}"
        raise SettingsError(Problem("sampling.options.eta", got, fix="remove it"))
    with under("model"):
        scheduler = None if base is None else load_scheduler(base)
    try:
        if plan.is_policy_gradient:
            return [made.backprop for made in _policy_plans(plan, sampling, scheduler)]
        if scheduler is None:
            return check_plan(plan.name, sampling.num_inference_steps, plan.options)
        return check_sampler_plan(scheduler, sampling.num_inference_steps, plan.name, plan.options)
    except PlanError as error:
        raise SettingsError(_in_settings(error, plan).under(setting)) from None
    except ValueError as error:  # of an estimator from elsewhere
        raise SettingsError(Problem(setting, str(error))) from None
    except TypeError as error:
        got = f"got {plan.name!r}, which is no function (num_steps, *, generator, ...) -> BackpropPlan: {error}"
        raise SettingsError(Problem(f"{setting}.name", got, fix="name one that is")) from None


def samples_per_prompt(plan: PlanSettings, num_steps: int) -> int:
    """Images of one prompt, for a plan that `check_estimator` finds nothing wrong with."""
    if not plan.is_policy_gradient:
        return 1
    return check_policy_plan(plan.name, num_steps, plan.options, draws=1)[0].samples


def asks_others(plan: PlanSettings, num_steps: int) -> bool:
    """Whether a plan that `check_estimator` finds nothing wrong with learns by other policies' outputs."""
    return plan.is_policy_gradient and check_policy_plan(plan.name, num_steps, plan.options, draws=1)[0].asks_others


def companion_decay(plan: PlanSettings, num_steps: int) -> Decay | None:
    """Of the average of the policies that samplers need beside the newest; None if they need none."""
    if not plan.is_policy_gradient:
        return None
    forward = check_policy_plan(plan.name, num_steps, plan.options, draws=1)[0].forward
    return None if forward is None else forward.decay


def _policy_plans(plan: PlanSettings, sampling: SamplingSettings, scheduler: Any) -> list[PolicyPlan]:
    if scheduler is None:
        return check_policy_plan(plan.name, sampling.num_inference_steps, plan.options)
    # What the pipeline will pass follows from the size of its images, which steps can have noise does not.
    shift = {"mu": scheduler.config.base_shift} if scheduler.config.get("use_dynamic_shifting", False) else {}
    scheduler.set_timesteps(sampling.num_inference_steps, **shift)
    plans = check_policy_plan(plan.name, solver_weights(scheduler, None).num_steps, plan.options)
    if plans[0].forward:
        step_levels(scheduler)
    else:
        transitions(scheduler, plans[0].kernel, plans[0].eta)
    return plans


def _in_settings(error: PlanError, plan: PlanSettings) -> Problem:
    """The estimators' words for what is wrong, by the names of the settings."""
    got, legal = f"got {error.got!r}", f"legal: {error.legal}"
    if error.field == "estimator":
        return Problem("name", got, legal, error.fix)
    names = policy_option_names(plan.name) if plan.is_policy_gradient else option_names(plan.name)
    if error.field in plan.options or error.field in names:
        return Problem(f"options.{error.field}", got, legal, error.fix)
    return Problem("", f"{error.field}: {got}", legal, error.fix)

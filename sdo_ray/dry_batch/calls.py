"""How the pipeline is called in a dry batch: as the run will call it, up to its first denoiser call; and tiny."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from sdo_ray.backprop import called_scheduler
from sdo_ray.config.calls import check_estimator
from sdo_ray.dry_batch.problems import FIX, line, problem
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.precision import own_precision
from sdo_ray.models.small import save_small
from sdo_ray.rollout.groups import groups_of
from sdo_ray.rollout.sampling import noise, plan_of
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.settings import Problem, SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

S = TypeVar("S", bound=SamplingSettings)

LIMITS = {"height": 64, "width": 64, "num_frames": 9}
"""Sizes of the tiny call: pixels, and frames of a video."""
INPUTS = ("image", "mask_image", "control_image", "control_mask", "video", "audio")
"""Arguments that pipelines cannot do without, whatever their defaults say."""
COLUMN = "`prompts.inputs: {NAME: COLUMN}`"
HEADS = 2
"""Of a stand-in's attention."""


def check_call(
    pipeline: DiffusionPipeline,
    sampling: SamplingSettings,
    prompts: Sequence[str],
    fix: str = FIX,
    column: str = COLUMN,
) -> None:
    """Refuse a call that does not come to its first denoiser call.

    Raises:
        SettingsError: see `blamed`.
    """
    try:
        _begin(pipeline, sampling, prompts)
    except Exception as error:
        raise blamed(pipeline, error, sampling, lambda how: _begin(pipeline, how, prompts), fix, column) from None


def blamed(
    pipeline: DiffusionPipeline,
    error: Exception,
    sampling: S,
    call: Callable[[S], Any],
    fix: str = FIX,
    column: str = COLUMN,
) -> SettingsError:
    """What a call raised, said of the option without which it raises nothing, or of inputs that were not given.

    Args:
        pipeline: which was called.
        error: what it raised.
        sampling: how it was called.
        call: calls it otherwise.
        fix: what else may be done.
        column: how an argument NAME is given to each prompt.
    """
    for option, value in sampling.options.items():
        others = {name: other for name, other in sampling.options.items() if name != option}
        try:
            call(sampling.model_copy(update={"options": others}))
        except Exception:
            continue
        got = f"got {value!r}, with which it fails"
        return SettingsError(problem(f"sampling.options.{option}", got, error, fix))
    got = "the pipeline cannot be called like this"
    given = {*sampling.options, *sampling.example}
    if absent := [name for name in INPUTS if name in _arguments(pipeline) and name not in given]:
        given_by = column.replace("NAME", absent[0])
        needed = f"if it needs {' and '.join(absent)}, {given_by} gives each prompt its own"
        return SettingsError(Problem("sampling", f"{got}: {line(error)}", fix=f"{needed}; else {fix}"))
    return SettingsError(problem("sampling", got, error, fix))


def tiny(pipeline: DiffusionPipeline, sampling: S, plan: PlanSettings, base: str) -> S:
    """The same sampling of small images, in as few steps as the plan takes.

    Args:
        pipeline: which is called.
        sampling: as of the run.
        plan: the estimator.
        base: the model whose scheduler it is.
    """
    small = sampling.model_copy(update={"options": sampling.options | _sizes(pipeline, sampling.options)})
    try:
        _begin(pipeline, small, ["a"])
    except Exception:
        small = sampling  # sizes that the model does not take
    for steps in range(min(2, sampling.num_inference_steps), sampling.num_inference_steps):
        fewer = small.model_copy(update={"num_inference_steps": steps})
        try:
            check_estimator(plan, fewer, "plan", base)
            made = groups_of if plan.is_policy_gradient else plan_of
            made(pipeline, fewer, plan, torch.Generator())
        except Exception:  # of image-to-image, which takes a share of the steps, perhaps none
            continue
        return fewer
    return small


def stand_in(base: str, directory: Path) -> str:
    """A small model in place of a large one, of which a plain call works.

    Args:
        base: the large one.
        directory: where to.

    Raises:
        SettingsError: the base cannot be read.
        ValueError: there is none; why.
    """
    for heads in (HEADS, None):
        place = directory / f"heads-{heads}"
        try:
            save_small(base, place, heads=heads)
            pipeline = load_pipeline(str(place))
            how = SamplingSettings(num_inference_steps=2, options=_sizes(pipeline, {}))
            latents(pipeline, how.pipeline_call(["a"]))
        except SettingsError:
            raise
        except Exception as error:  # of a configuration that was made here
            cause = error
        else:
            return str(place)
    raise ValueError(line(cause))


def latents(pipeline: DiffusionPipeline, call: Mapping[str, Any]) -> torch.Tensor:
    """What a stand-in samples for one prompt, before it is decoded; float32."""
    with torch.no_grad(), own_precision(pipeline):
        made = pipeline(**call, generator=noise(0, [0]), output_type="latent")[0]
    return torch.as_tensor(made).float()


def _begin(pipeline: DiffusionPipeline, sampling: SamplingSettings, prompts: Sequence[str]) -> None:
    """Call the pipeline up to its first denoiser call."""
    with own_precision(pipeline):
        called_scheduler(pipeline, generator=noise(0, range(len(prompts))), **sampling.pipeline_call(prompts))


def _sizes(pipeline: DiffusionPipeline, options: Mapping[str, Any]) -> dict[str, int]:
    taken = _arguments(pipeline)
    return {name: min(options.get(name, most), most) for name, most in LIMITS.items() if name in taken}


def _arguments(pipeline: DiffusionPipeline) -> Mapping[str, inspect.Parameter]:
    """Of its call."""
    return inspect.signature(type(pipeline).__call__).parameters

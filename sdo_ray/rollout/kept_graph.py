"""Whether a batch that waits for its rewards holds the networks' activations: settings, and the choice by memory."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from sdo_ray.backprop import BackpropPlan, StepGradient, TraceError
from sdo_ray.backprop.apart import watched
from sdo_ray.backprop.saved import saved_activations
from sdo_ray.rollout.groups import groups_of
from sdo_ray.rollout.preparation import is_by_frames_as_it_is
from sdo_ray.rollout.sampling import draw, noise, plan_of, sample, steps_to_take
from sdo_ray.rollout.settings import KeptGraph, LearningSamplerSettings, PlanSettings, SamplingSettings
from sdo_ray.settings import Problem, SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_log = logging.getLogger(__name__)

SHARE = 0.5
"""Of a device's memory, that activations may have."""

_FEW = 2
"""Steps of the call by which memory is estimated."""


class LearnedSamplingSettings(SamplingSettings):
    """How the pipeline is called to learn from what it makes."""

    kept_graph: Literal["auto", "retain", "recompute"] = Field(
        "auto",
        description="What a batch holds while it waits for its rewards. `retain`: the activations of the kept steps "
        "and of the decoder, of all its images. `recompute`: none; they are made again afterwards, an image at a time, "
        "for one more forward pass of each kept step and one more decoding. `auto`: `retain` where an estimate says "
        "that it takes at most half of the memory; else the kept steps' activations alone, and the decoder's made "
        "again, where that does; else `recompute`. Of videos whose rewards all look at some `frames` alone, it decodes "
        "these again, if the decoder makes them, or chunks or runs of them, by themselves. The images are the same, "
        "the gradient is but for rounding.",
    )


def choose_kept_graph(
    pipeline: DiffusionPipeline,
    sampling: LearnedSamplingSettings,
    plan: PlanSettings,
    samplers: LearningSamplerSettings,
    some_frames: bool = False,
) -> KeptGraph:
    """What `kept_graph` means for a sampler; "auto" is decided by settings and machine alone, and logged.

    Args:
        pipeline: with what is trained, on the sampler's device.
        sampling: how to call it.
        plan: the estimator.
        samplers: how many images at once, on what share of a device.
        some_frames: whether no reward that is learned from looks at all frames of a video.

    Raises:
        SettingsError: see `check_frames`.
    """
    check_frames(pipeline, sampling)
    if sampling.kept_graph != "auto":
        return sampling.kept_graph
    steps, images = kept_and_images(pipeline, sampling, plan, samplers.batch_size)
    memory = _memory(pipeline, samplers)
    *holding, chosen = ways_of_auto(some_frames, some_frames and _decodes_apart(pipeline, sampling))
    for kept in holding:
        try:
            size = steps * samplers.in_flight * images * activations_of_one(pipeline, sampling, kept)
        except torch.OutOfMemoryError:
            size = None
        _log.info(
            "kept_graph: with %s, activations of %d kept steps of %d times %d images are estimated at %s of %.1f GiB",
            kept,
            steps,
            samplers.in_flight,
            images,
            "more than there is" if size is None else f"{size / 2**30:.1f}",
            memory / 2**30,
        )
        if size is not None and size <= SHARE * memory:
            chosen = kept
            break
    if chosen == "recompute" and not _can_be_made_again(pipeline, sampling):
        chosen = "steps"
    _log.info("kept_graph: %s", chosen)
    return chosen


def check_frames(pipeline: DiffusionPipeline, sampling: LearnedSamplingSettings) -> None:
    """Refuse `decode: frames`, where only a decoding made again would read it, beside `retain`.

    Raises:
        SettingsError: it is so.
    """
    if sampling.kept_graph == "retain" and sampling.decode == "frames" and is_by_frames_as_it_is(pipeline):
        got = f"got 'frames' beside kept_graph: retain; a {type(pipeline).__name__} decodes by frames in any case, "
        got += "and this is for a decoding that is made again, which there is with kept_graph: auto or recompute"
        raise SettingsError(Problem("sampling.decode", got, fix="choose one of these, or decode: whole"))


def ways_of_auto(some_frames: bool, apart: bool) -> tuple[KeptGraph, ...]:
    """What "auto" may be: the first of these for which the memory is enough, else the last.

    Args:
        some_frames: as of `choose_kept_graph`.
        apart: whether the decoder makes them by themselves. Then it decodes them again even where there is memory, for
            less than a backward pass through the decoding of all; of another, that would be one more decoding of all.
    """
    return ("steps", "recompute") if some_frames and apart else ("retain", "steps", "recompute")


def activations_of_one(
    pipeline: DiffusionPipeline, sampling: SamplingSettings, kept_graph: KeptGraph = "retain"
) -> int:
    """Bytes that autograd saves of one kept step of one image, and of its decoding, by a call of few steps."""
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    with saved_activations(*parts) as saved:
        _sample_one(pipeline, sampling, kept_graph)
    return saved.bytes


def kept_and_images(
    pipeline: DiffusionPipeline, sampling: SamplingSettings, plan: PlanSettings, rows: int
) -> tuple[int, int]:
    """Kept steps, and the images of a batch."""
    draws = torch.Generator().manual_seed(0)
    if plan.is_policy_gradient:
        made = groups_of(pipeline, sampling, plan, draws).plan
        return len(made.kept), rows * made.samples
    return len(plan_of(pipeline, sampling, plan, draws).steps), rows


def _decodes_apart(pipeline: DiffusionPipeline, sampling: SamplingSettings) -> bool:
    """Whether its decoder makes frames by themselves, see `watched`."""
    decoders = [part for part in pipeline.components.values() if callable(getattr(part, "decode", None))]
    with ExitStack() as stack:
        found = [stack.enter_context(watched(part)) for part in decoders if isinstance(part, torch.nn.Module)]
        with torch.random.fork_rng():
            draw(pipeline, _few(pipeline, sampling).pipeline_call(["a"]), noise(0, [0]))
    return any(is_apart() for is_apart in found)


def _can_be_made_again(pipeline: DiffusionPipeline, sampling: SamplingSettings) -> bool:
    """Not if the pipeline changes its denoiser for its call."""
    try:
        _sample_one(pipeline, sampling, "recompute")
    except TraceError as error:
        _log.info("%s", error)
        return False
    return True


def _sample_one(pipeline: DiffusionPipeline, sampling: SamplingSettings, kept_graph: KeptGraph) -> None:
    few = _few(pipeline, sampling)
    num_steps = plan_of(pipeline, few, PlanSettings(name="full")).num_steps
    plan = BackpropPlan("estimate", num_steps, {num_steps - 1: StepGradient()})
    with torch.random.fork_rng():
        sample(pipeline, few.pipeline_call(["a"]), noise(0, [0]), plan, kept_graph=kept_graph)


def _few(pipeline: DiffusionPipeline, sampling: SamplingSettings) -> SamplingSettings:
    steps = min(steps_to_take(pipeline, sampling, _FEW), sampling.num_inference_steps)
    return sampling.model_copy(update={"num_inference_steps": steps})


def _memory(pipeline: DiffusionPipeline, samplers: LearningSamplerSettings) -> float:
    """Bytes for one sampler, without the weights: of its GPU, or its share of the machine's main memory."""
    if pipeline.device.type == "cuda":
        whole = torch.cuda.get_device_properties(pipeline.device).total_memory
        return whole * min(1.0, samplers.num_gpus) - torch.cuda.memory_allocated(pipeline.device)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / samplers.count

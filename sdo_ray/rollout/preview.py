"""The samples of a run's preview prompts on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdo_ray.backprop import StepRunner
from sdo_ray.media.modality import modality_of
from sdo_ray.media.picture import picture, to_png
from sdo_ray.prompts.inputs import Row
from sdo_ray.rollout.contact_sheet import grid
from sdo_ray.rollout.sampling import draw
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.seeds import generator

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def preview(
    pipeline: DiffusionPipeline,
    sampling: SamplingSettings,
    prompts: Sequence[str],
    seed: int,
    batch_size: int,
    runner: StepRunner | None = None,
    inputs: Sequence[Row] = (),
) -> bytes:
    """A PNG; prompt i has the noise of the run's seed and i.

    Args:
        pipeline: with the policy to be looked at.
        sampling: how to call it.
        prompts: one a sample.
        seed: the run's.
        batch_size: samples made at once, at most.
        runner: how the denoiser's steps are made; by default exactly.
        inputs: of each prompt; may be empty.
    """
    pictures, modality = [], modality_of(type(pipeline))
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        generators = [generator(seed, "preview", start + i) for i in range(len(part))]
        call = sampling.pipeline_call(part, inputs[start : start + batch_size])
        pictures += [picture(x, modality) for x in draw(pipeline, call, generators, runner)]
    return to_png(grid(pictures))

"""How the policy does on held-out prompts while it is trained, by evaluators that it does not learn from."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from sdo_ray.backprop.steps import StepRunner
from sdo_ray.rollout.records import HeldOut
from sdo_ray.rollout.reward_client import RewardClient
from sdo_ray.rollout.sampling import draw_images
from sdo_ray.rollout.settings import SamplingSettings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def held_out_scores(
    pipeline: DiffusionPipeline,
    sampling: SamplingSettings,
    held_out: HeldOut,
    seed: int,
    batch_size: int,
    runner: StepRunner | None = None,
) -> dict[str, float]:
    """Each evaluator's mean over the images of all prompts that it has a finite score of; none without any.

    Args:
        pipeline: with the policy to be looked at.
        sampling: how to call it.
        held_out: prompts and evaluators.
        seed: the run's.
        batch_size: images made at once, at most.
        runner: how the denoiser's steps are made; by default exactly.
    """
    evaluators = RewardClient(held_out.evaluators, learned=())
    found: dict[str, list[float]] = {key: [] for key in held_out.evaluators}
    for start in range(0, len(held_out.prompts), batch_size):
        part = slice(start, start + batch_size)
        prompts = held_out.prompts[part]
        images = draw_images(pipeline, sampling, seed, prompts, held_out.indices[part], runner, held_out.inputs[part])
        scores, _ = evaluators(images, prompts)
        for key, values in scores.items():
            found[key] += [value for value in values.tolist() if math.isfinite(value)]
    return {key: statistics.fmean(values) for key, values in found.items() if values}

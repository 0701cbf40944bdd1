"""How the policy does on held-out prompts while it is trained, by evaluators that it does not learn from."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

import torch

from rewards.saturation import Saturation
from rewards.sharpness import Sharpness
from sdo_ray.backprop.steps import StepRunner
from sdo_ray.prompts.inputs import Prompts
from sdo_ray.rollout.looks import HeldOut
from sdo_ray.rollout.reward_client import RewardClient
from sdo_ray.rollout.sampling import draw_images
from sdo_ray.rollout.settings import SamplingSettings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


OF_IMAGES = ("sharpness", "saturation", "diversity")
"""What is measured of images besides, whatever the evaluators."""


def held_out_scores(
    pipeline: DiffusionPipeline,
    sampling: SamplingSettings,
    held_out: HeldOut,
    seed: int,
    batch_size: int,
    runner: StepRunner | None = None,
) -> dict[str, float]:
    """Each evaluator's mean over the images of all prompts that it has a finite score of; none without any.

    Of images also `OF_IMAGES`, where no evaluator has that name.

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
    drawn = []
    for start in range(0, len(held_out.prompts), batch_size):
        part = slice(start, start + batch_size)
        prompts = held_out.prompts[part]
        images = draw_images(pipeline, sampling, seed, prompts, held_out.indices[part], runner, held_out.inputs[part])
        drawn.append(images)
        scores, _ = evaluators(images, Prompts(prompts, held_out.inputs[part]))
        for key, values in scores.items():
            found[key] += [value for value in values.tolist() if math.isfinite(value)]
    return of_images(torch.cat(drawn)) | {key: statistics.fmean(values) for key, values in found.items() if values}


def of_images(images: torch.Tensor) -> dict[str, float]:
    """`OF_IMAGES`: what is left of them when a reward is hacked, by no network that could be hacked with it.

    Args:
        images: [B, 3, H, W] in [0, 1]; of anything else there is nothing.

    Returns:
        Mean sharpness and saturation, see the rewards of these names; and, of two images or more, `diversity`: the root
        mean square difference of two of them, in 0 .. 1, mean over all pairs. Of those that are finite.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        return {}
    images = images[images.flatten(1).isfinite().all(1)]
    if not len(images):
        return {}
    means = {
        name: float(of(images, []).mean()) for name, of in (("sharpness", Sharpness()), ("saturation", Saturation()))
    }
    if len(images) > 1:
        means["diversity"] = float(torch.pdist(images.flatten(1)).mean()) / math.sqrt(images[0].numel())
    return means

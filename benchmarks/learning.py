"""One plan learning one reward in one process: the mathematics of `sdo align` without the cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rewards import create
from rewards.mix import RewardTerm
from rewards.scoring import score, score_with_gradient
from sdo_ray.models.adapter import adapter_parameters, attach_lora
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.load import autocast, load_pipeline
from sdo_ray.models.settings import LoraSettings
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.prompts import read_prompts, schedule
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.seeds import derive_seed, generator
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings

JUDGES = {
    "layout": ("layout",),
    "preference": ("preference", "heldout_preference"),
    "alignment": ("alignment", "heldout_alignment"),
}
"""Reward to learn -> what is measured on held-out prompts: itself, and last its judge, if it has one."""


@dataclass(frozen=True)
class Task:
    """What is the same for all plans and seeds that are compared."""

    base: str
    """The model."""
    steps: int
    """Sampling steps N."""
    batch: int
    """Pictures of an update."""
    rank: int
    """Of the LoRA on the attention layers; alpha is the same number."""
    learning_rate: float
    """Of AdamW; no clipping, no decay."""
    guidance: float
    """Guidance scale."""
    dtype: str
    """Type of the frozen weights and of sampling."""
    seconds: float
    """CPU seconds that a plan may learn for, at the least: the update in which they end is finished."""
    updates: int
    """After this many updates, too, the plan is measured: the comparison at equal updates."""
    heldout: int
    """Held-out prompts that are measured on."""


@dataclass(frozen=True)
class Point:
    """One measurement on the held-out prompts."""

    updates: int
    """Updates so far."""
    seconds: float
    """CPU seconds that they took; measuring does not count."""
    scores: dict[str, list[float]]
    """Judge -> a score for each held-out prompt, the noise of each the same at every measurement of all plans."""


def learn(task: Task, reward: str, plan: str, seed: int, prompts: Sequence[str], heldout: Sequence[str]) -> list[Point]:
    """Learn for `task.seconds`, and measure after half of them, after `task.updates` updates, and at the end.

    Args:
        task: the setting.
        reward: the only reward, one of `JUDGES`.
        plan: the estimator, with its default options.
        seed: of prompts, noise, kept steps and adapter.
        prompts: to learn on.
        heldout: to measure on.

    Returns:
        The measurements in order of time.
    """
    torch.manual_seed(derive_seed(seed, "adapter", 0))
    pipeline = load_pipeline(task.base, task.dtype)
    attach_lora(find_denoisers(pipeline), LoraSettings(rank=task.rank, alpha=float(task.rank)))
    parameters = adapter_parameters(find_denoisers(pipeline))
    optimizer = torch.optim.AdamW(parameters.values(), lr=task.learning_rate, weight_decay=0.0)
    sampling = SamplingSettings(num_inference_steps=task.steps, guidance_scale=task.guidance)
    teacher, judges = create(reward), {name: create(name) for name in JUDGES[reward]}

    def rewards(images: torch.Tensor, prompts: Sequence[str]) -> Any:
        scores, gradient = score_with_gradient(teacher, images, list(prompts))
        return {reward: scores}, {reward: gradient}

    def measure() -> dict[str, list[float]]:
        return measured(pipeline, sampling, heldout, judges)

    points: list[Point] = []
    seconds, updates, due = 0.0, 0, [task.seconds / 2, task.seconds]
    while due:
        [block] = schedule(
            list(prompts),
            seed=seed,
            batch_size=task.batch,
            sampler_batch_size=task.batch,
            start=updates,
            stop=updates + 1,
        )
        began = time.process_time()
        contribution = compute_contribution(
            pipeline,
            PromptBatch.from_arrow(block),
            updates,
            seed=seed,
            sampling=sampling,
            plan=PlanSettings(name=plan),
            rewards=rewards,
            terms=[RewardTerm(reward, 1.0)],
            normalize=False,
        )
        for name, parameter in parameters.items():
            parameter.grad = -contribution.gradient[name] / max(1, contribution.num_samples)
        optimizer.step()
        seconds, updates = seconds + time.process_time() - began, updates + 1
        if seconds >= due[0] or updates == task.updates:
            points.append(Point(updates, seconds, measure()))
        due = [second for second in due if second > seconds]
    return points


def measured(
    pipeline: Any, sampling: SamplingSettings, heldout: Sequence[str], judges: dict[str, Any]
) -> dict[str, list[float]]:
    """Judge -> its score of a picture of each held-out prompt; prompt i has noise of its own, always the same."""
    scores: dict[str, list[float]] = {name: [] for name in judges}
    for first in range(0, len(heldout), 8):
        batch = list(heldout[first : first + 8])
        noise = [generator(0, "held-out noise", first + i) for i in range(len(batch))]
        with torch.no_grad(), autocast(pipeline):
            images = pipeline(output_type="pt", generator=noise, **sampling.pipeline_call(batch)).images
        for name, judge in judges.items():
            scores[name] += score(judge, images.float(), batch).tolist()
    return scores


def record(task: Task, reward: str, plan: str, seed: int, points: Sequence[Point]) -> dict[str, Any]:
    """A line of the results file."""
    return {
        "task": asdict(task),
        "reward": reward,
        "plan": plan,
        "seed": seed,
        "points": [asdict(point) for point in points],
    }


def base_record(task: Task, reward: str, heldout: Sequence[str]) -> dict[str, Any]:
    """The line of the base model, plan "none": measured once, before any update."""
    pipeline = load_pipeline(task.base, task.dtype)
    sampling = SamplingSettings(num_inference_steps=task.steps, guidance_scale=task.guidance)
    scores = measured(pipeline, sampling, heldout, {name: create(name) for name in JUDGES[reward]})
    return record(task, reward, "none", 0, [Point(0, 0.0, scores)])


def heldout_prompts(path: str, count: int) -> list[str]:
    """`count` prompts of a parquet file, spread over it."""
    prompts = read_prompts(path)
    return [prompts[i * len(prompts) // count] for i in range(count)]

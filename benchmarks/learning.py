"""One plan learning one reward in one process: the mathematics of `sdo align` without the cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import CONTENDERS
from rewards import create
from rewards.scoring import score, score_with_gradient
from rewards.terms import Mixing, RewardTerm
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.trained.lora import LoraSettings, attach
from sdo_ray.prompts.read import read_prompts
from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout.contact_sheet import grid
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.sampling import draw
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.seeds import derive_seed, generator

Mix = Mapping[str, float]
"""Reward -> weight."""

LEARNED: Mapping[str, Mix] = {
    "layout": {"layout": 1.0, "alignment": 0.5},
    # Which is also had by drawing nothing but a bar at the top.
    "layout-alone": {"layout": 1.0},
    "texture": {"preference": 1.0},
    "text": {"alignment": 1.0},
}
"""What is learned: where things are, how they are drawn, or what is shown."""

EVALUATED: Mapping[str, Mix] = {
    "layout": {"layout": 1.0, "heldout_alignment": 0.5},
    "layout-alone": {"layout": 1.0},
    "texture": {"heldout_preference": 1.0},
    "text": {"heldout_alignment": 1.0},
}
"""What evaluates it on held-out prompts: the same mix with each reward's evaluator; a layout needs none but itself."""

CONTENT = "heldout_alignment"
"""Whether images still show what was asked for, measured whatever is learned."""


@dataclass(frozen=True)
class Task:
    """What is the same for all plans and seeds that are compared."""

    base: str
    """The model."""
    steps: int
    """Sampling steps N."""
    batch: int
    """Images of an update."""
    rank: int
    """Of the LoRA on the attention layers; alpha is the same number."""
    learning_rate: float
    """Of AdamW; no clipping, no decay."""
    guidance: float
    """Guidance scale."""
    dtype: str
    """Type of the frozen weights and of sampling."""
    updates: int
    """Of `full`, and the number at which all plans are compared at equal updates."""
    heldout: int
    """Held-out prompts that are measured on."""


@dataclass(frozen=True)
class Point:
    """One measurement on the held-out prompts."""

    updates: int
    """Updates so far."""
    seconds: float
    """CPU seconds that they took, measuring not counted; on a shared machine they depend on what else it does."""
    scores: dict[str, list[float]]
    """Evaluator -> a score for each held-out prompt, the noise of each the same at every measurement of all plans."""


def learn(
    task: Task,
    reward: str,
    plan: str,
    seed: int,
    prompts: Sequence[str],
    heldout: Sequence[str],
    *,
    updates: int,
    sheet: Path | None = None,
) -> list[Point]:
    """Learn, and measure after `task.updates` updates and at the end.

    Args:
        task: the setting.
        reward: one of `LEARNED`.
        plan: of `CONTENDERS`.
        seed: of prompts, noise, kept steps and adapter.
        prompts: to learn on.
        heldout: to measure on.
        updates: how many the plan makes.
        sheet: PNG to write with images of the first held-out prompts at the end.

    Returns:
        The measurements in order of time.
    """
    torch.manual_seed(derive_seed(seed, "adapter", 0))
    pipeline = load_pipeline(task.base, task.dtype)
    attach(pipeline.components, LoraSettings(rank=task.rank, alpha=float(task.rank)))
    parameters = trained_parameters(find_denoisers(pipeline))
    optimizer = torch.optim.AdamW(parameters.values(), lr=task.learning_rate, weight_decay=0.0)
    measuring = SamplingSettings(num_inference_steps=task.steps, guidance_scale=task.guidance)
    scheduler = pipeline.scheduler
    sampling, runner = CONTENDERS[plan].prepare(pipeline, measuring)
    own_scheduler = pipeline.scheduler
    teachers, evaluators = {name: create(name) for name in LEARNED[reward]}, evaluators_of(reward)

    def rewards(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Any:
        both = {name: score_with_gradient(teacher, images, list(prompts)) for name, teacher in teachers.items()}
        return {name: scores for name, (scores, _) in both.items()}, {name: g for name, (_, g) in both.items()}

    points: list[Point] = []
    seconds = 0.0
    for update in range(updates):
        [block] = schedule(
            list(prompts),
            seed=seed,
            batch_size=task.batch,
            sampler_batch_size=task.batch,
            start=update,
            stop=update + 1,
        )
        began = time.process_time()
        contribution = compute_contribution(
            pipeline,
            PromptBatch.from_arrow(block),
            update,
            seed=seed,
            sampling=sampling,
            plan=CONTENDERS[plan].plan,
            runner=runner,
            rewards=rewards,
            terms=[RewardTerm(name, weight) for name, weight in LEARNED[reward].items()],
            mixing=Mixing(),
        )
        for name, parameter in parameters.items():
            parameter.grad = -contribution.gradient[name] / max(1, contribution.num_samples)
        optimizer.step()
        seconds += time.process_time() - began
        if update + 1 in (task.updates, updates):
            pipeline.scheduler = scheduler
            points.append(Point(update + 1, seconds, measured(pipeline, measuring, heldout, evaluators)))
            pipeline.scheduler = own_scheduler
    if sheet is not None:
        pipeline.scheduler = scheduler
        images = draw_heldout(pipeline, measuring, heldout, 0)
        grid(pipeline.image_processor.numpy_to_pil(images.permute(0, 2, 3, 1).numpy()), columns=8).save(sheet)
    return points


def evaluators_of(reward: str) -> dict[str, Any]:
    """What is measured on held-out prompts, by name."""
    return {name: create(name) for name in dict.fromkeys((*LEARNED[reward], *EVALUATED[reward], CONTENT))}


def measured(
    pipeline: Any, sampling: SamplingSettings, heldout: Sequence[str], evaluators: dict[str, Any]
) -> dict[str, list[float]]:
    """Evaluator -> its score of an image of each held-out prompt; prompt i has noise of its own, always the same."""
    scores: dict[str, list[float]] = {name: [] for name in evaluators}
    for first in range(0, len(heldout), 8):
        images = draw_heldout(pipeline, sampling, heldout, first)
        for name, evaluator in evaluators.items():
            scores[name] += score(evaluator, images, list(heldout[first : first + 8])).tolist()
    return scores


def draw_heldout(pipeline: Any, sampling: SamplingSettings, heldout: Sequence[str], first: int) -> torch.Tensor:
    """Images of the held-out prompts from `first` on, at most eight, [B, 3, H, W] in [0, 1]."""
    batch = list(heldout[first : first + 8])
    noise = [generator(0, "held-out noise", first + i) for i in range(len(batch))]
    images: torch.Tensor = draw(pipeline, sampling.pipeline_call(batch), noise)
    return images.float()


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
    scores = measured(pipeline, sampling, heldout, evaluators_of(reward))
    return record(task, reward, "none", 0, [Point(0, 0.0, scores)])


def heldout_prompts(path: str, count: int) -> list[str]:
    """`count` prompts of a parquet file, spread over it."""
    prompts = read_prompts(path)
    return [prompts[i * len(prompts) // count] for i in range(count)]

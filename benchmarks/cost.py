"""What one update of each plan costs: time, what autograd saves, and on CUDA the peak of allocated memory."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.contenders import CONTENDERS
from benchmarks.models import BenchmarkModel
from sdo_ray.backprop import BackpropPlan, StepRunner, differentiable_sample, make_plan, sampler_plan
from sdo_ray.backprop.saved import saved_activations
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.precision import own_precision
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings


@dataclass(frozen=True)
class Cost:
    """One plan's update: sampling, decoding, and the backward pass from the images to the adapter."""

    plan: str
    """The estimator; "plain" is the pipeline call alone."""
    seconds: list[float]
    """Of each round: CPU seconds of the process, or on CUDA seconds by the clock."""
    saved: float
    """Bytes that autograd saves, mean of the rounds."""
    saved_decoder: int
    """The decoder's among them, the same for every plan but "plain"."""
    allocated: int | None
    """On CUDA, peak of allocated bytes above the weights and what else was there before, in the last round."""

    @property
    def saved_denoiser(self) -> float:
        """Bytes that autograd saves from the final latents back."""
        return max(0.0, self.saved - self.saved_decoder)


@dataclass(frozen=True)
class Way:
    """How an update, or the plain call, is made."""

    plan: Callable[[int], BackpropPlan]
    """Seed of what is drawn -> the kept steps."""
    scheduler: Any
    """That the pipeline has meanwhile."""
    call: dict[str, Any]
    """Arguments of the pipeline's call but those that say what to draw."""
    runner: StepRunner | None
    """What makes the steps without a graph."""


def costs(
    model: BenchmarkModel, plans: Sequence[str], *, steps: int, batch: int, guidance: float, rounds: int
) -> list[Cost]:
    """Measure the plans in turn, in a drawn order, so that whatever else the machine does hits all of them.

    Plans that draw steps draw anew in every round, all with the round's seed.

    Args:
        model: see `benchmarks.models`.
        plans: of `CONTENDERS`; the plain call is measured beside them.
        steps: N.
        batch: images of an update.
        guidance: guidance scale.
        rounds: at least 1; one before them is not counted.
    """
    names = ("plain", *plans)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    saved: dict[str, list[int]] = {name: [] for name in names}
    allocated: dict[str, int | None] = dict.fromkeys(names)
    sampling = SamplingSettings(num_inference_steps=steps, guidance_scale=guidance)
    scheduler = model.pipeline.scheduler
    ways = {"plain": Way(lambda _: BackpropPlan("plain", steps), scheduler, _call(sampling), None)}
    for name in plans:
        contender = CONTENDERS[name]
        own, runner = contender.prepare(model.pipeline, sampling)
        make = partial(_plan, model.pipeline.scheduler, own.num_inference_steps, contender.plan)
        ways[name] = Way(make, model.pipeline.scheduler, _call(own), runner)
        model.pipeline.scheduler = scheduler

    order, shuffle = list(names), random.Random(0).shuffle
    for i in range(rounds + 1):
        shuffle(order)
        for name in order:
            way = ways[name]
            model.pipeline.scheduler = way.scheduler
            took, allocated[name] = _timed(model, partial(update, model, way, batch, i))
            if i:
                seconds[name].append(took)
                saved[name].append(_saved(model, way, batch, "pt", i))
    model.pipeline.scheduler = scheduler
    last = Way(lambda _: make_plan("draft", steps), scheduler, _call(sampling), None)
    decoder = _saved(model, last, batch, "pt") - _saved(model, last, batch, "latent")
    return [Cost(name, seconds[name], statistics.mean(saved[name]), decoder, allocated[name]) for name in names]


def update(model: BenchmarkModel, way: Way, batch: int, seed: int) -> None:
    """Sample, decode, and take a gradient at the images back to the adapter; an empty plan only samples."""
    for parameter in trained_parameters(find_denoisers(model.pipeline)).values():
        parameter.grad = None
    plan = way.plan(seed)
    with own_precision(model.pipeline):
        images = differentiable_sample(
            model.pipeline,
            plan,
            runner=way.runner,
            generator=torch.Generator().manual_seed(seed),
            **model.call(batch),
            **way.call,
        )
    if plan.steps:
        images.backward(torch.ones_like(images))


def _plan(scheduler: Any, steps: int, plan: PlanSettings, seed: int) -> BackpropPlan:
    draws = torch.Generator().manual_seed(seed)
    return sampler_plan(scheduler, steps, plan.name, generator=draws, **plan.options)


def _call(sampling: SamplingSettings) -> dict[str, Any]:
    """Arguments of the pipeline's call but those that say what to draw."""
    return {name: value for name, value in sampling.pipeline_call([]).items() if name != "prompt"}


def _saved(model: BenchmarkModel, way: Way, batch: int, output_type: str, seed: int = 0) -> int:
    parts = [part for part in model.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    plan = way.plan(seed)
    with saved_activations(*parts) as saved, own_precision(model.pipeline):
        differentiable_sample(
            model.pipeline,
            plan,
            runner=way.runner,
            output_type=output_type,
            generator=torch.Generator().manual_seed(0),
            **model.call(batch),
            **way.call,
        )
    return saved.bytes


def _timed(model: BenchmarkModel, run: Callable[[], None]) -> tuple[float, int | None]:
    """Seconds, and peak of allocated bytes above what there was before."""
    if model.pipeline.device.type != "cuda":
        began = time.process_time()
        run()
        return time.process_time() - began, None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, began = torch.cuda.memory_allocated(), time.monotonic()
    run()
    torch.cuda.synchronize()
    return time.monotonic() - began, torch.cuda.max_memory_allocated() - before


def as_table(costs: Sequence[Cost]) -> str:
    """Markdown: medians, and medians of the rounds' ratios to the plain call and to `full` if it is there."""
    by_name = {cost.plan: cost for cost in costs}
    plain, full = by_name["plain"], by_name.get("full")
    lines = [
        "| plan | seconds | / plain | / full | saved, MB | / full | of the denoiser, MB | / full | peak, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cost in costs:
        cells = [
            f"`{cost.plan}`",
            f"{statistics.median(cost.seconds):.2f}",
            _ratio(cost.seconds, plain.seconds),
            _ratio(cost.seconds, full.seconds) if full else "",
            f"{cost.saved / 1e6:.1f}",
            f"{cost.saved / full.saved:.3f}" if full else "",
            f"{cost.saved_denoiser / 1e6:.1f}",
            f"{cost.saved_denoiser / full.saved_denoiser:.3f}" if full else "",
            "" if cost.allocated is None else f"{cost.allocated / 1e6:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ratio(seconds: Sequence[float], other: Sequence[float]) -> str:
    ratios = sorted(a / b for a, b in zip(seconds, other, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f})"

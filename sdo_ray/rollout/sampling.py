"""The one place that calls a pipeline: with a plan's graph to learn from its samples, or plainly to look at them.

plan_of   settings -> the plan of one call
noise     run seed and rows -> the call's generators;  reward_seeds  likewise, for what rewards draw
sample    pipeline, call, generators, plan -> Trajectory, from which `sdo_ray.rollout.objective` goes on
draw      pipeline, call, generators -> samples without a graph

Samples are images [B, 3, H, W] or videos [B, F, 3, H, W] in [0, 1], audio [B, C, T], or what else a pipeline makes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from sdo_ray.backprop import (
    BackpropPlan,
    KeptCall,
    StepRunner,
    called_scheduler,
    differentiable_sample,
    run_by,
    sampler_plan,
    solver_weights,
)
from sdo_ray.backprop.bypass import without_checks
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.backprop.patches import restored_processors
from sdo_ray.backprop.sample import stacked
from sdo_ray.backprop.transitions import StochasticSteps
from sdo_ray.media.modality import modality_of
from sdo_ray.models.precision import own_precision
from sdo_ray.prompts.inputs import STRENGTH, Row
from sdo_ray.rollout.settings import Backward, KeptGraph, PlanSettings, SamplingSettings
from sdo_ray.seeds import derive_seed, generator

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True, eq=False)
class KeptOutput:
    """What the scheduler was given at a kept step; see `sdo_ray.backprop.OutputHook`."""

    step: int
    """k, 0 .. N-1."""
    scale: float
    """s_k, the plan's."""
    o: torch.Tensor
    """o_k, usually [B, C, h, w], guidance combined, with the graph that the plan keeps."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One sampling, with the graph of its plan."""

    plan: BackpropPlan
    """Which steps kept their graph."""
    samples: torch.Tensor
    """x, to the bit those of a plain call."""
    outputs: tuple[KeptOutput, ...]
    """Of the kept steps, in the order of sampling: where cotangents go in besides those of the samples."""
    calls: tuple[KeptCall, ...]
    """The kept denoiser calls that were made without a graph: all of them, or none."""
    stochastic: StochasticSteps | None = None
    """The steps with fresh noise after them, with that noise; the samples are then not those of a plain call."""

    @property
    def seen(self) -> torch.Tensor:
        """What rewards are given: the samples as float32 on the CPU, without a graph."""
        return self.samples.detach().float().cpu()


def plan_of(
    pipeline: DiffusionPipeline, sampling: SamplingSettings, plan: PlanSettings, draws: torch.Generator | None = None
) -> BackpropPlan:
    """The plan of one call, for the steps that the pipeline's scheduler takes in it, and by their weights.

    Args:
        pipeline: which is called.
        sampling: how.
        plan: the estimator.
        draws: where the steps come from that it draws; None is torch's default.

    Raises:
        PlanError: see `sdo_ray.backprop.sampler_plan`.
    """
    return sampler_plan(scheduler_of(pipeline, sampling), None, plan.name, generator=draws, **plan.options)


def noise(seed: int, rows: Sequence[int]) -> list[torch.Generator]:
    """Each row's generator, on the CPU: (run seed, row) fixes its noise, in whatever batch and on whatever device."""
    return [generator(seed, "noise", row) for row in rows]


def reward_seeds(seed: int, rows: Sequence[int], iteration: int = 0) -> list[int]:
    """Each row's seed of what a reward draws for it, another at each iteration over the same rows."""
    return [derive_seed(seed, f"reward {iteration}", row) for row in rows]


def sample(
    pipeline: DiffusionPipeline,
    call: Mapping[str, Any],
    generators: Sequence[torch.Generator],
    plan: BackpropPlan,
    *,
    backward: Backward = "sampler",
    kept_graph: KeptGraph = "retain",
    runner: StepRunner | None = None,
    stochastic: StochasticSteps | None = None,
) -> Trajectory:
    """Call the pipeline once and keep the graph that `plan` asks for, or what makes it again.

    Args:
        pipeline: in which only what is trained requires gradients, on any device.
        call: the call's keyword arguments, such as `SamplingSettings.pipeline_call` makes them.
        generators: of the samples' noise, one each.
        plan: from `plan_of`.
        backward: where the denoiser's backward pass runs. With "trainer" kept calls have no graph and are in `calls`.
        kept_graph: "retain" keeps the activations of kept steps and of the decoder; with "steps" the decoder's are made
            again by the backward pass. "recompute" keeps none of any network: kept calls too, where the plan is of
            single calls and only denoisers are trained, have no graph and are in `calls`. What is left of the graph
            is the scheduler's arithmetic.
        runner: how the denoiser's steps without a graph are made; by default exactly.
        stochastic: steps with fresh noise after them, if any.

    Raises:
        TraceError: see `sdo_ray.backprop.differentiable_sample`.
    """
    outputs, calls = list[KeptOutput](), list[KeptCall]()
    again = kept_graph == "recompute"
    with own_precision(pipeline):
        samples = differentiable_sample(
            pipeline,
            plan,
            output_hook=lambda step, scale, o: outputs.append(KeptOutput(step, scale, o)),
            elsewhere=calls if backward == "trainer" or (again and _learns_at_calls(pipeline, plan)) else None,
            runner=runner,
            decode_again=kept_graph != "retain",
            stochastic=stochastic,
            generator=list(generators),
            **call,
        )
    return Trajectory(plan, _shaped(pipeline, samples), tuple(outputs), tuple(calls), stochastic)


def _learns_at_calls(pipeline: DiffusionPipeline, plan: BackpropPlan) -> bool:
    """Whether the backward pass of the kept denoiser calls by themselves is all that there is."""
    denoisers = denoisers_of(pipeline).values()
    others = (p for p in pipeline.components.values() if isinstance(p, torch.nn.Module) and p not in denoisers)
    return plan.is_of_single_calls and not any(p.requires_grad for part in others for p in part.parameters())


def draw(
    pipeline: DiffusionPipeline,
    call: Mapping[str, Any],
    generators: Sequence[torch.Generator],
    runner: StepRunner | None = None,
    output_type: str = "pt",
    *,
    checked: bool = False,
) -> torch.Tensor:
    """Samples of a plain call, without a graph.

    They are what the model makes: a safety checker's black image would be scored, compared and shown in its place.

    Args:
        pipeline: on any device.
        call: as of `sample`.
        generators: as of `sample`.
        runner: how the denoiser's steps are made; by default exactly.
        output_type: of the call: `pt`, or `latent` for what is not decoded.
        checked: whether the pipeline's safety checker looks at them, and its watermark is put on them.

    Raises:
        TypeError: the pipeline returns something else.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(own_precision(pipeline))
        stack.enter_context(restored_processors(denoisers_of(pipeline).values()))
        if not checked:
            stack.enter_context(without_checks(pipeline))
        if runner is not None:
            stack.enter_context(run_by(runner, pipeline, _num_steps(pipeline, call, generators)))
        made = pipeline(generator=list(generators), output_type=output_type, **call)[0]
    if isinstance(made, np.ndarray):  # whatever is asked for, of some; channels are last then
        made = torch.from_numpy(made) if made.ndim < 4 else torch.from_numpy(made).movedim(-1, -3)
    samples = stacked(made)
    if samples is None:
        raise TypeError(f"{type(pipeline).__name__} returns {type(made).__name__}, not samples of one shape")
    return _shaped(pipeline, samples)


def draw_images(
    pipeline: DiffusionPipeline,
    sampling: SamplingSettings,
    seed: int,
    prompts: Sequence[str],
    indices: Sequence[int],
    runner: StepRunner | None = None,
    inputs: Sequence[Row] = (),
) -> torch.Tensor:
    """Samples, float32 on the CPU; (seed, index) fixes a sample's noise.

    Args:
        pipeline: on any device.
        sampling: how to call it.
        seed: the run's.
        prompts: one a sample.
        indices: likewise.
        runner: how the denoiser's steps are made; by default exactly.
        inputs: of each prompt; may be empty.
    """
    generators = [generator(seed, "evaluation noise", index) for index in indices]
    return draw(pipeline, sampling.pipeline_call(prompts, inputs), generators, runner).float().cpu()


def _shaped(pipeline: DiffusionPipeline, samples: torch.Tensor) -> torch.Tensor:
    """Sounds with their one channel, which some pipelines leave out."""
    return samples[:, None] if samples.ndim == 2 and modality_of(type(pipeline)) == "audio" else samples


def _num_steps(pipeline: DiffusionPipeline, call: Mapping[str, Any], generators: Sequence[torch.Generator]) -> int:
    """How many steps the scheduler takes in a call."""
    copies = [torch.Generator(g.device).set_state(g.get_state()) for g in generators]
    return solver_weights(called_scheduler(pipeline, generator=copies, **call), None).num_steps


def steps_to_take(pipeline: DiffusionPipeline, sampling: SamplingSettings, few: int) -> int:
    """The `num_inference_steps` of which a call takes `few`: image-to-image takes the share `strength` of its steps."""
    parameter = inspect.signature(type(pipeline).__call__).parameters.get(STRENGTH)
    default = None if parameter is None else parameter.default
    share = {STRENGTH: default, **sampling.options, **sampling.example}[STRENGTH]
    return math.ceil(few / share) if isinstance(share, int | float) and 0 < share <= 1 else few


def scheduler_of(pipeline: DiffusionPipeline, sampling: SamplingSettings) -> Any:
    """The scheduler as the pipeline sets it; found out once, for it depends on nothing that differs between batches."""
    scheduler, how = pipeline.scheduler, sampling.model_dump_json()
    known = _CALLED.get(pipeline)
    if known is None or known[:2] != (scheduler, how):
        call = sampling.pipeline_call(["a"]) | {"generator": [torch.Generator().manual_seed(0)]}
        with own_precision(pipeline):
            known = _CALLED[pipeline] = (scheduler, how, called_scheduler(pipeline, **call))
    return known[2]


_CALLED: WeakKeyDictionary[Any, tuple[Any, str, Any]] = WeakKeyDictionary()
"""Pipeline -> its scheduler and how it is called, and what `called_scheduler` said for them."""

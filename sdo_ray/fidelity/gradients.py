"""One batch's gradients by a plan, and by every single step. No Ray in here.

Notation
    N         sampling steps;  o_k  what the scheduler is given at step k;  theta  what is trained, as one vector [P]
    x         images;  R  mixed reward, mean over the batch
    g_k       dR/do_k along the direct path, other outputs held
    G_k       (do_k/dtheta)^T g_k, the direct term of step k: the gradient of `sdo` with k kept
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from rewards.pulls import Pull
from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop import BackpropPlan, StepGradient, StepRunner
from sdo_ray.backprop.denoiser_rows import denoiser_rows
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.backprop.saved import saved_activations
from sdo_ray.backprop.scaling import scales_of
from sdo_ray.fidelity.clock import clock_of
from sdo_ray.prompts.inputs import Prompts
from sdo_ray.rollout.group_objective import group_objective
from sdo_ray.rollout.groups import Groups
from sdo_ray.rollout.objective import Cotangents, Objective, RewardFunction, backpropagate, reward_objective
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.sampling import Trajectory, noise, plan_of, reward_seeds, sample
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.seeds import derive_seed

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Evaluated:
    """How a batch is sampled and what it learns from; the same for all that is compared."""

    seed: int
    """The run's seed: (seed, row) fixes an image's noise."""
    sampling: SamplingSettings
    rewards: RewardFunction
    terms: Sequence[RewardTerm]
    mixing: Mixing
    runner: StepRunner | None = None
    """How steps without a graph are made; None: exactly."""


@dataclass(frozen=True)
class MeasuredGradient:
    """The gradient of the mean mixed reward over a batch, and what it took."""

    gradient: torch.Tensor
    """float32 [P] on the CPU."""
    seconds: float
    """Of sampling and backward pass, without the rewards: CPU seconds of the process, or by the clock on a GPU."""
    saved: int
    """Bytes that autograd saved."""
    reward: float
    """Mean mixed reward of what the plan lets the reward see."""
    rows: int
    """Of denoiser calls, guidance included: forward passes as one, backward passes as two."""
    pulls: Mapping[str, Pull] = field(default_factory=dict)
    """Reward key -> how it pulls on the images."""
    cosines: Mapping[str, float] = field(default_factory=dict)
    """"KEY/KEY" of two rewards -> how far they pull the same way."""


def plan_gradient(
    pipeline: DiffusionPipeline,
    trained: Mapping[str, torch.nn.Parameter],
    batch: PromptBatch,
    plan: BackpropPlan,
    evaluated: Evaluated,
) -> MeasuredGradient:
    """The gradient that one update with `plan` learns from.

    Args:
        pipeline: in which only what is trained requires gradients.
        trained: the trained parameters; their order is that of the vector.
        batch: rows and prompts.
        plan: which steps keep their graph.
        evaluated: how to sample, and what counts.
    """

    return _measured(
        pipeline,
        trained,
        lambda: _sample(pipeline, batch, plan, evaluated),
        lambda trajectory: _reward(trajectory, batch, evaluated),
    )


def group_gradient(
    pipeline: DiffusionPipeline,
    trained: Mapping[str, torch.nn.Parameter],
    batch: PromptBatch,
    groups: Groups,
    evaluated: Evaluated,
    draw: int,
) -> MeasuredGradient:
    """The same of a policy-gradient estimator, to which no reward shows its gradient.

    Args:
        pipeline: in which only what is trained requires gradients.
        trained: the trained parameters; their order is that of the vector.
        batch: rows and prompts; a prompt's first samples have the noise that its row has with other plans.
        groups: how it is sampled in groups.
        evaluated: how to sample, and what counts.
        draw: its number, which fixes the noise of stochastic steps.
    """
    seed, rows = evaluated.seed, batch.rows
    prompts, inputs = groups.each(batch.prompts), groups.each(batch.inputs)
    steps = groups.stochastic(derive_seed(seed, "draw of groups", draw), rows, differentiable=False)

    def sampled() -> Trajectory:
        call = evaluated.sampling.pipeline_call(prompts, inputs)
        return sample(pipeline, call, groups.noise(seed, rows), groups.plan.backprop, stochastic=steps)

    def objective(trajectory: Trajectory) -> tuple[float, Objective]:
        scores, _ = evaluated.rewards(trajectory.seen, Prompts(prompts, inputs), groups.reward_seeds(seed, rows))
        made, _ = group_objective(trajectory, groups, scores, {}, evaluated.terms, evaluated.mixing)
        count = max(1, int(made.valid.sum()))
        outputs = [(kept, u / count) for kept, u in made.cotangents.outputs]
        return made.score[made.valid].sum().item() / count, replace(made, cotangents=Cotangents(None, outputs))

    return _measured(pipeline, trained, sampled, objective)


def step_gradients(
    pipeline: DiffusionPipeline,
    trained: Mapping[str, torch.nn.Parameter],
    batch: PromptBatch,
    evaluated: Evaluated,
    *,
    checkpoint: bool = False,
) -> list[torch.Tensor]:
    """G_k of every step k = 0 .. N-1, float32 [P] each, from one sampling.

    Every step's graph is kept, none coupled to another: one backward pass through the decoder gives all g_k, and one
    through each step its G_k. With `checkpoint` the activations of one step at a time are held, made again.
    """
    num_steps = plan_of(pipeline, evaluated.sampling, PlanSettings(name="full")).num_steps
    parameters = list(trained.values())
    plan = BackpropPlan(
        "direct", num_steps, {k: StepGradient(1.0, 0.0) for k in range(num_steps)}, checkpoint=checkpoint
    )
    trajectory = _sample(pipeline, batch, plan, evaluated)
    _, objective = _reward(trajectory, batch, evaluated)
    images, outputs, v = trajectory.samples, trajectory.outputs, objective.cotangents.samples
    assert v is not None
    scales = scales_of([v], [images, *(kept.o for kept in outputs), *parameters])
    for scale in scales:
        again, scaled = len(scales) > 1, (v * scale).to(images.device, images.dtype)
        g = torch.autograd.grad(images, [kept.o for kept in outputs], scaled, retain_graph=again, allow_unused=True)
        G = [torch.zeros(sum(p.numel() for p in parameters)) for _ in range(num_steps)]
        for kept, g_k in zip(outputs, g, strict=True):
            if g_k is not None:
                found = torch.autograd.grad(kept.o, parameters, g_k, retain_graph=again, allow_unused=True)
                G[kept.step] += _vector(parameters, found) / scale
        if all(G_k.isfinite().all() for G_k in G):
            break
    return G


def _measured(
    pipeline: DiffusionPipeline,
    trained: Mapping[str, torch.nn.Parameter],
    sampled: Callable[[], Trajectory],
    objective: Callable[[Trajectory], tuple[float, Objective]],
) -> MeasuredGradient:
    """Sampling and backward pass on the clock, and between them the rewards, which are not."""
    clock = clock_of(pipeline)
    began = clock()
    with saved_activations(*_modules(pipeline)) as saved, denoiser_rows(denoisers_of(pipeline).values()) as rows:
        trajectory = sampled()
    seconds, num_bytes = clock() - began, saved.bytes
    saved.clear()
    reward, learned = objective(trajectory)
    resumed = clock()
    found = backpropagate(trajectory, learned.cotangents, trained)
    seconds += clock() - resumed
    gradient = _vector(list(trained.values()), list(found.parameters.values()))
    return MeasuredGradient(gradient, seconds, num_bytes, reward, rows.count, learned.pulls, learned.cosines)


def _sample(pipeline: DiffusionPipeline, batch: PromptBatch, plan: BackpropPlan, evaluated: Evaluated) -> Trajectory:
    call = evaluated.sampling.pipeline_call(batch.prompts, batch.inputs)
    return sample(pipeline, call, noise(evaluated.seed, batch.rows), plan, runner=evaluated.runner)


def _reward(trajectory: Trajectory, batch: PromptBatch, evaluated: Evaluated) -> tuple[float, Objective]:
    """Mean mixed reward, and its gradient at the samples; a sample without a finite one counts as none."""
    seeds = reward_seeds(evaluated.seed, batch.rows)
    scores, gradients = evaluated.rewards(trajectory.seen, Prompts(batch.prompts, batch.inputs), seeds)
    objective = reward_objective(scores, gradients, evaluated.terms, evaluated.mixing)
    count = max(1, int(objective.valid.sum()))
    mean, v = objective.score[objective.valid].sum().item() / count, objective.cotangents.samples
    assert v is not None
    return mean, replace(objective, cotangents=Cotangents(v / count))


def _vector(parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Gradients as one vector, zeros for what they do not reach."""
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).detach().float().cpu().flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )


def _modules(pipeline: DiffusionPipeline) -> list[torch.nn.Module]:
    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]

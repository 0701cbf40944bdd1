"""One iteration's gradient of the rows' variables: followed through a reward, or found by comparing samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sdo_ray.backprop import given_prompt_embeds
from sdo_ray.input_optimization.records import OptimizerConfig, RowBatch
from sdo_ray.rollout.group_objective import group_objective
from sdo_ray.rollout.groups import groups_of
from sdo_ray.rollout.objective import ImageGradients, Objective, Scores, backpropagate
from sdo_ray.rollout.sampling import Trajectory, sample
from sdo_ray.seeds import derive_seed

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TextRewards = Callable[[torch.Tensor, Mapping[str, Sequence[str]], Sequence[int]], tuple[Scores, ImageGradients]]
"""Images [B,3,H,W] float32 in [0,1] on the CPU, reward key -> the texts it is given, and a seed of each image for what
a reward draws -> scores and gradients."""


@dataclass(frozen=True)
class RowGradients:
    """Which way the mixed reward rises."""

    gradients: Sequence[torch.Tensor | None]
    """Of each row's variable, of its type; None where there is nothing to learn from."""
    first_step: int
    """The first sampling step that kept its graph."""


def followed(trajectory: Trajectory, objective: Objective, values: Sequence[torch.Tensor]) -> RowGradients:
    """The reward's own gradient, through the step that the trajectory's plan keeps.

    Args:
        trajectory: of the rows; its graph is freed.
        objective: of it.
        values: the rows' variables.
    """
    found = backpropagate(trajectory, objective.cotangents, {str(b): value for b, value in enumerate(values)})
    v = objective.cotangents.samples
    assert v is not None
    gradients = [found.parameters[str(b)].to(value.dtype) if v[b].any() else None for b, value in enumerate(values)]
    return RowGradients(gradients, min(trajectory.plan.steps))


def compared(
    pipeline: DiffusionPipeline,
    batch: RowBatch,
    config: OptimizerConfig,
    embedding: torch.Tensor,
    rewards: TextRewards,
    iteration: int,
    draws: torch.Generator,
    *,
    differentiable: bool,
) -> RowGradients:
    """The gradient of one row's prompt embedding by a policy-gradient estimator: docs/black-box.md.

    A group of samples of the row's own noise parts at a step by fresh noise, other noise at each iteration; which are
    better says which way the denoiser's output there, and with it the embedding, should move.

    Args:
        pipeline: frozen.
        batch: of one row.
        config: whose plan is a policy-gradient estimator.
        embedding: the row's variable.
        rewards: computes the rewards.
        iteration: its number.
        draws: where the steps come from that the estimator draws.
        differentiable: whether a reward that is learned from has a gradient, and teaches by it.
    """
    groups = groups_of(pipeline, config.sampling, config.plan, draws, iteration)
    samples, seed = groups.plan.samples, derive_seed(config.seed, "comparison", iteration)
    call = config.sampling.pipeline_call(groups.each(batch.texts[config.column]), groups.each(batch.inputs))
    with given_prompt_embeds(pipeline, embedding.expand(samples, *embedding.shape).to(pipeline.dtype)):
        trajectory = sample(
            pipeline,
            call,
            groups.noise(config.seed, batch.rows),
            groups.plan.backprop,
            stochastic=groups.stochastic(seed, batch.rows, differentiable),
        )
    texts = {term.key: groups.each(batch.texts[term.text or config.column]) for term in config.rewards.terms}
    scores, gradients = rewards(trajectory.seen, texts, groups.reward_seeds(seed, batch.rows))
    terms = [term.term for term in config.rewards.terms]
    objective, _ = group_objective(trajectory, groups, scores, gradients, terms, config.rewards.mixing)
    told = any(u.any() for _, u in objective.cotangents.outputs)
    found = backpropagate(trajectory, objective.cotangents, {"embedding": embedding})
    return RowGradients([found.parameters["embedding"] if told else None], min(groups.plan.kept))

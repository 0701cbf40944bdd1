"""The gradients of many batches and plans, spread over actors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch
from ray.util import ActorPool

from sdo_ray.backprop import StepRunner
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.settings import CheapStepsSettings
from sdo_ray.fidelity.gradients import Evaluated, MeasuredGradient, group_gradient, plan_gradient, step_gradients
from sdo_ray.models.checkpointing import checkpoint_as_set
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach_working_copy, initial_policy, load_model
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.groups import groups_of
from sdo_ray.rollout.preparation import prepare
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.reward_client import RewardClient
from sdo_ray.rollout.reward_settings import MixSettings
from sdo_ray.rollout.sampling import plan_of
from sdo_ray.rollout.settings import PlanSettings, SamplerSettings, SamplingSettings
from sdo_ray.seeds import derive_seed, generator


@dataclass(frozen=True)
class GradientConfig:
    """What the actors need to know."""

    seed: int
    """The run's seed, of the initial adapter; (seed, row) fixes the noise, (seed, draw, first row) the drawn steps."""
    model: ModelSettings
    sampling: SamplingSettings
    mix: MixSettings
    samplers: SamplerSettings
    draws: int
    """How often each plan is drawn for each batch."""
    checkpoint: bool
    """Whether the graph of all single steps keeps their inputs alone."""


@dataclass(frozen=True)
class Work:
    """One batch for one plan."""

    batch: PromptBatch
    """Its `update` is the batch's number."""
    plan: PlanSettings | None
    """None: every single step."""
    cheap: CheapStepsSettings | None = None
    """How its steps without a graph are made; None: exactly."""


@dataclass(frozen=True)
class Done:
    """What came of it."""

    work: Work
    draws: list[MeasuredGradient]
    """One a draw; empty without a plan."""
    steps: list[torch.Tensor]
    """G_k of every step, float32 [P] each; empty with a plan."""


class GradientMaker:
    """Holds one model; turns work into gradients.

    Args:
        config: what to do.
    """

    def __init__(self, config: GradientConfig) -> None:
        torch.set_num_threads(max(1, int(config.samplers.num_cpus)))
        self._config = config
        device = "cuda" if config.samplers.num_gpus else "cpu"
        self._pipeline = load_model(config.model, device)
        trained = attach_working_copy(self._pipeline.components, config.model)
        set_parameters(trained, initial_policy(config.model, derive_seed(config.seed, "adapter", 0)))
        checkpoint_as_set(self._pipeline, config.model.checkpoint_blocks)
        prepare(self._pipeline, config.sampling, config.samplers)
        self._parameters = trained_parameters(trained)
        self._runners: dict[str, StepRunner | None] = {}

    def measure(self, work: Work, reward_actors: Mapping[str, Any]) -> Done:
        """Do it.

        Args:
            work: what to do.
            reward_actors: handles by reward name. They come with each call, as Ray could not start an actor again whose
                constructor was given references that it may have lost.
        """
        evaluated = replace(self._evaluated(reward_actors), runner=self._runner(work.cheap))
        if work.plan is None:
            steps = step_gradients(
                self._pipeline, self._parameters, work.batch, evaluated, checkpoint=self._config.checkpoint
            )
            return Done(work, [], steps)
        draws: list[MeasuredGradient] = []
        pipeline, sampling, row = self._pipeline, self._config.sampling, work.batch.rows[0]
        seeds = [generator(self._config.seed, f"plan {draw}", row) for draw in range(self._config.draws)]
        if work.plan.is_policy_gradient:
            for draw, seed in enumerate(seeds):
                groups = groups_of(pipeline, sampling, work.plan, seed)
                draws.append(group_gradient(pipeline, self._parameters, work.batch, groups, evaluated, draw))
            return Done(work, draws, [])
        plans = [plan_of(pipeline, sampling, work.plan, seed) for seed in seeds]
        for plan in plans:
            # A plan that draws nothing, or what it drew before, gives what it gave before.
            if plan in plans[: len(draws)]:
                draws.append(draws[plans.index(plan)])
            else:
                draws.append(plan_gradient(pipeline, self._parameters, work.batch, plan, evaluated))
        return Done(work, draws, [])

    def _runner(self, cheap: CheapStepsSettings | None) -> StepRunner | None:
        """Made once: a copy takes the memory of the denoiser's weights, and is let go when another way is measured."""
        if cheap is None:
            return None
        if cheap.words not in self._runners:
            steps = self._config.sampling.num_inference_steps
            self._runners = {cheap.words: choose_runner(self._pipeline, cheap.cache, cheap.fast_copy, steps)}
        return self._runners[cheap.words]

    def _evaluated(self, reward_actors: Mapping[str, Any]) -> Evaluated:
        config = self._config
        terms = [term.term for term in config.mix.terms]
        rewards = RewardClient(reward_actors, [term.key for term in terms if term.weight])
        return Evaluated(config.seed, config.sampling, rewards, terms, config.mix.mixing)


def measure_all(work: Sequence[Work], config: GradientConfig, reward_actors: Mapping[str, Any]) -> Iterator[Done]:
    """Spread the work over `samplers.count` actors and yield what is done, in the order of the work.

    An actor that dies is restarted and does its piece again.

    Args:
        work: what to do.
        config: of the actors.
        reward_actors: handles by reward name.

    Raises:
        ray.exceptions.RayTaskError: a model or reward raised an exception.
    """
    samplers = config.samplers
    maker = ray.remote(GradientMaker).options(
        num_cpus=samplers.num_cpus, num_gpus=samplers.num_gpus, max_restarts=-1, max_task_retries=-1
    )
    makers = [maker.remote(config) for _ in range(min(samplers.count, len(work)))]
    yield from ActorPool(makers).map(lambda actor, piece: actor.measure.remote(piece, reward_actors), work)

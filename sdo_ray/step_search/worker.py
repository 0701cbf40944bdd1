"""Candidates spread over actors, each of which holds one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.util import ActorPool

from rewards.terms import Mixing
from sdo_ray.cheap_steps.runner import CheapRunner
from sdo_ray.fidelity.gradients import Evaluated
from sdo_ray.models.checkpointing import checkpoint_as_set
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach_working_copy, initial_policy, load_model
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.preparation import prepare
from sdo_ray.rollout.reward_client import RewardClient
from sdo_ray.rollout.reward_settings import MixSettings
from sdo_ray.rollout.settings import PlanSettings, SamplerSettings, SamplingSettings
from sdo_ray.seeds import derive_seed
from sdo_ray.step_search.trials import Trial, Trials, Tried


@dataclass(frozen=True)
class TrialConfig:
    """What the actors need to know."""

    seed: int
    """The run's: of the initial adapter, the noise, and the drawn steps of `plan`."""
    model: ModelSettings
    sampling: SamplingSettings
    """Without a cache."""
    mix: MixSettings | None
    samplers: SamplerSettings
    plan: PlanSettings


class TrialActor:
    """Holds one model; tries out ways on it.

    Args:
        config: what to do.
    """

    def __init__(self, config: TrialConfig) -> None:
        torch.set_num_threads(max(1, int(config.samplers.num_cpus)))
        pipeline = load_model(config.model, "cuda" if config.samplers.num_gpus else "cpu")
        trained = attach_working_copy(pipeline.components, config.model)
        set_parameters(trained, initial_policy(config.model, derive_seed(config.seed, "adapter", 0)))
        checkpoint_as_set(pipeline, config.model.checkpoint_blocks)
        runner = prepare(pipeline, config.sampling, config.samplers)
        copies = runner.copies if isinstance(runner, CheapRunner) else {}
        terms = [term.term for term in config.mix.terms] if config.mix else []
        mixing = config.mix.mixing if config.mix else Mixing()
        # Filled by each call: Ray could not start an actor again whose constructor was given references that it lost.
        self._reward_actors: dict[str, Any] = {}
        rewards = RewardClient(self._reward_actors, [term.key for term in terms if term.weight])
        evaluated = Evaluated(config.seed, config.sampling, rewards, terms, mixing)
        self._trials = Trials(pipeline, trained_parameters(trained), copies, evaluated, config.plan)

    def try_out(self, trial: Trial, timed: bool, reward_actors: Mapping[str, Any]) -> Tried:
        """See `Trials`."""
        self._reward_actors.update(reward_actors)
        return self._trials.try_out(trial, timed=timed)

    def cost(self, trial: Trial, reward_actors: Mapping[str, Any]) -> float:
        """See `Trials`."""
        self._reward_actors.update(reward_actors)
        return self._trials.cost(trial)


class TrialPool:
    """Starts the actors.

    Args:
        config: of the actors.
        reward_actors: handles by reward name.
    """

    def __init__(self, config: TrialConfig, reward_actors: Mapping[str, Any]) -> None:
        samplers = config.samplers
        actor = ray.remote(TrialActor).options(
            num_cpus=samplers.num_cpus, num_gpus=samplers.num_gpus, max_restarts=-1, max_task_retries=-1
        )
        self._actors, self._rewards = [actor.remote(config) for _ in range(samplers.count)], reward_actors

    def try_out(self, trials: Sequence[Trial], *, timed: bool = False) -> Iterator[Tried]:
        """Spread trials and yield what is done, in their order. An actor that dies is restarted and does its own again.

        Raises:
            ray.exceptions.RayTaskError: the model raised an exception.
        """
        yield from ActorPool(self._actors).map(
            lambda actor, trial: actor.try_out.remote(trial, timed, self._rewards), trials
        )

    def costs(self, trials: Sequence[Trial]) -> list[float]:
        """What trials cost; see `Trials.cost`."""
        return list(ActorPool(self._actors).map(lambda actor, trial: actor.cost.remote(trial, self._rewards), trials))

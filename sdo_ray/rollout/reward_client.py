"""Ask the reward actors, all at once, from a sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch

from rewards.registry import import_path
from rewards.service import RewardActor
from rewards.spec import RewardSpec
from sdo_ray.cluster import cause_of
from sdo_ray.rollout.objective import ImageGradients, Scores
from sdo_ray.rollout.settings import RewardActorSettings
from sdo_ray.settings import Problem, Problems


def start_reward_actors(rewards: Sequence[RewardActorSettings]) -> dict[str, Any]:
    """One actor a reward, each with its own resources and packages; returns handles by reward key.

    A dead actor is restarted and its unanswered calls are made again. Returns once all are ready, so that a reward that
    cannot start, or whose environment has to say that it cannot be used so, says it before sampling starts.

    Raises:
        SettingsError: naming each such reward.
    """
    actors = {
        reward.key: ray.remote(RewardActor)
        .options(
            num_cpus=reward.num_cpus,
            num_gpus=reward.num_gpus,
            runtime_env=reward.runtime_env or None,
            max_restarts=-1,
            max_task_retries=-1,
        )
        .remote(
            import_path(reward.name, reward.runtime_env),
            reward.options,
            num_threads=max(1, int(reward.num_cpus)),
            device="cuda" if reward.num_gpus else "cpu",
            smoothing=reward.smoothing,
        )
        for reward in rewards
    }
    starts = {name: actor.spec.options(max_task_retries=0).remote() for name, actor in actors.items()}
    with Problems() as problems:
        for reward in rewards:
            try:
                reward.check_role(ray.get(starts[reward.key]))
            except ray.exceptions.RayError as error:
                problems.add(Problem("", f"reward {reward.key!r} could not start: {cause_of(error)}"))
            except ValueError as error:
                problems.add(Problem("", str(error)))
    return actors


def reward_specs(actors: Mapping[str, Any]) -> dict[str, RewardSpec]:
    """What each reward is, by its key, as its actor says."""
    return dict(zip(actors, ray.get([actor.spec.remote() for actor in actors.values()]), strict=True))


def reward_provenance(actors: Mapping[str, Any]) -> dict[str, str]:
    """`reward.NAME` -> sha256 of the reward's weights and its options."""
    parts = ray.get([actor.provenance.remote() for actor in actors.values()])
    return {
        f"reward.{name}": f"{part['weights_hash']} {part['options']}" for name, part in zip(actors, parts, strict=True)
    }


class RewardClient:
    """A `RewardFunction` that the reward actors compute, in parallel.

    Args:
        actors: handles by reward key, from `start_reward_actors`.
        learned: keys of the rewards whose gradient is wanted.
    """

    def __init__(self, actors: Mapping[str, Any], learned: Sequence[str]) -> None:
        self._actors = actors
        self._learned = frozenset(learned)

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int] = ()
    ) -> tuple[Scores, ImageGradients]:
        """See `RewardFunction`; without a gradient that is wanted, there is nothing to draw."""
        return self.ask(images, dict.fromkeys(self._actors, prompts), seeds)

    def ask(
        self, images: torch.Tensor, texts: Mapping[str, Sequence[str]], seeds: Sequence[int] = ()
    ) -> tuple[Scores, ImageGradients]:
        """The same with texts for each reward key of its own."""
        shared = ray.put(np.ascontiguousarray(images.numpy()))
        calls = {
            name: actor.score.remote(shared, list(texts[name]), name in self._learned, list(seeds))
            for name, actor in self._actors.items()
        }
        scores, gradients = {}, {}
        for name, (values, gradient, _) in zip(calls, ray.get(list(calls.values())), strict=True):
            scores[name] = torch.from_numpy(np.array(values))
            gradients[name] = None if gradient is None else torch.from_numpy(np.array(gradient, dtype=np.float32))
        return scores, gradients

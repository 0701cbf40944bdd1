"""Ask the reward actors, all at once, from a sampler."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import ray
import torch

from rewards.provenance import as_tags, is_noncommercial
from rewards.registry import import_path
from rewards.spec import RewardSpec
from sdo_ray.rollout.objective import ImageGradients, Scores
from sdo_ray.rollout.replicas import RewardFailed
from sdo_ray.rollout.reward_pool import PooledReward, RewardHandle, start_pool
from sdo_ray.rollout.settings import RewardActorSettings
from sdo_ray.settings import Problem, Problems

_log = logging.getLogger(__name__)


def start_reward_actors(rewards: Sequence[RewardActorSettings], black_boxes: bool = False) -> dict[str, RewardHandle]:
    """The rewards' actors, each with its own resources and packages; returns handles by reward key.

    Returns once all are ready, so that a reward that cannot start, or whose environment has to say that it cannot be
    used so, says it before sampling starts.

    Args:
        rewards: as they were named.
        black_boxes: whether rewards without a gradient can teach.

    Raises:
        SettingsError: naming each such reward.
    """
    handles = start_pool(
        {reward.key: PooledReward(import_path(reward.name, reward.runtime_env), reward) for reward in rewards}
    )
    starts = {key: handle.spec() for key, handle in handles.items()}
    with Problems() as problems:
        for reward in rewards:
            try:
                spec = ray.get(starts[reward.key])
                reward.check_role(spec)
                if not black_boxes:
                    reward.check_gradient(spec)
            except RewardFailed as error:
                problems.add(Problem("", error.line))
            except ValueError as error:
                problems.add(Problem("", str(error)))
    for name, spec in reward_specs(handles).items():
        if is_noncommercial(spec.licence):
            _log.warning(
                "the licence of reward %r, %s, forbids commercial use, perhaps of what learns from it, too",
                name,
                spec.licence,
            )
    return handles


def reward_specs(rewards: Mapping[str, RewardHandle]) -> dict[str, RewardSpec]:
    """What each reward is, by its key, as its actor says."""
    return dict(zip(rewards, ray.get([handle.spec() for handle in rewards.values()]), strict=True))


def reward_provenance(rewards: Mapping[str, RewardHandle]) -> dict[str, str]:
    """`reward.NAME` -> sha256 of the reward's weights and its options; its licence, sources and versions beside it."""
    parts = ray.get([handle.provenance() for handle in rewards.values()])
    return {tag: text for name, part in zip(rewards, parts, strict=True) for tag, text in as_tags(name, part).items()}


class RewardClient:
    """A `RewardFunction` that the reward actors compute, in parallel.

    Args:
        rewards: handles by reward key, from `start_reward_actors`.
        learned: keys of the rewards whose gradient is wanted.
    """

    def __init__(self, rewards: Mapping[str, RewardHandle], learned: Sequence[str]) -> None:
        self._rewards = rewards
        self._learned = frozenset(learned)

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int] = ()
    ) -> tuple[Scores, ImageGradients]:
        """See `RewardFunction`; without a gradient that is wanted, there is nothing to draw."""
        return self.ask(images, dict.fromkeys(self._rewards, prompts), seeds)

    def ask(
        self, images: torch.Tensor, texts: Mapping[str, Sequence[str]], seeds: Sequence[int] = ()
    ) -> tuple[Scores, ImageGradients]:
        """The same with texts for each reward key of its own."""
        shared = ray.put(np.ascontiguousarray(images.numpy()))
        calls = {
            name: reward.score(shared, tuple(images.shape), list(texts[name]), name in self._learned, list(seeds))
            for name, reward in self._rewards.items()
        }
        scores, gradients = {}, {}
        for name, [answer] in zip(calls, ray.get(list(calls.values())), strict=True):
            values, gradient = ray.get(answer)
            scores[name] = torch.from_numpy(np.array(values))
            gradients[name] = None if gradient is None else torch.from_numpy(np.array(gradient, dtype=np.float32))
        return scores, gradients

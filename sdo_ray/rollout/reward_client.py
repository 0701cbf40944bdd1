"""Ask the reward actors, all at once, from a sampler."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray
import torch

from rewards.half import from_half
from rewards.modality import Made
from rewards.provenance import as_tags, is_noncommercial
from rewards.registry import import_path
from rewards.spec import RewardSpec
from sdo_ray.prompts.inputs import argument_of, texts_of
from sdo_ray.rollout.objective import ImageGradients, Scores
from sdo_ray.rollout.replica import RewardFailed
from sdo_ray.rollout.reward_pool import PooledReward, RewardHandle, asked_together, start_pool
from sdo_ray.rollout.reward_settings import RewardActorSettings
from sdo_ray.settings import Problem, Problems

_log = logging.getLogger(__name__)

ANYTHING = Made()
NO_INPUTS: Mapping[str, str] = {}

SAY_EVERY = 30.0
"""Seconds between lines that say which rewards are waited for."""


def start_reward_actors(
    rewards: Sequence[RewardActorSettings],
    black_boxes: bool = False,
    made: Made = ANYTHING,
    inputs: Mapping[str, str] = NO_INPUTS,
) -> dict[str, RewardHandle]:
    """The rewards' actors, each with its own resources and packages; returns handles by reward key.

    Returns once all are ready, so that a reward that cannot start, or whose environment has to say that it cannot be
    used so, says it before sampling starts.

    Args:
        rewards: as they were named.
        black_boxes: whether rewards without a gradient can teach.
        made: what the model makes, see `RewardActorSettings.check_modality`.
        inputs: argument of the pipeline's call -> column, for rewards with a `text`.

    Raises:
        SettingsError: naming each such reward.
    """
    handles = start_pool(
        {
            reward.key: PooledReward(
                import_path(reward.name, reward.runtime_env),
                reward,
                made.sampling_rate,
                argument_of(reward.text, inputs),
            )
            for reward in rewards
        }
    )
    starts = {key: handle.spec() for key, handle in handles.items()}
    missing, began = list(starts.values()), time.monotonic()
    while missing:
        ready, missing = ray.wait(missing, timeout=SAY_EVERY)
        if missing and not ready:
            late = ", ".join(key for key, start in starts.items() if start in missing)
            print(f"waiting since {time.monotonic() - began:.0f} s for rewards to start: {late}", flush=True)
    with Problems() as problems:
        for reward in rewards:
            try:
                spec = ray.get(starts[reward.key])
                reward.check_role(spec)
                reward.check_modality(spec, made)
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


Answer = Callable[[], tuple[torch.Tensor, torch.Tensor | None]]
"""Waits for a reward, and raises what it raised."""


class RewardClient:
    """A `RewardFunction` that the reward actors compute, in parallel.

    Args:
        rewards: handles by reward key, from `start_reward_actors`; looked at when they are asked.
        learned: keys of the rewards whose gradient is wanted.
        device: where scores and gradients are wanted.
    """

    def __init__(self, rewards: Mapping[str, RewardHandle], learned: Sequence[str], device: str = "cpu") -> None:
        self._rewards = rewards
        self._learned = frozenset(learned)
        self._device = device

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int] = ()
    ) -> tuple[Scores, ImageGradients]:
        """See `RewardFunction`; without a gradient that is wanted, there is nothing to draw."""
        return self.ask(images, dict.fromkeys(self._rewards, prompts), seeds)

    def ask(
        self, images: torch.Tensor, texts: Mapping[str, Sequence[str]], seeds: Sequence[int] = ()
    ) -> tuple[Scores, ImageGradients]:
        """The same with texts for each reward key of its own."""
        answers = {key: answer() for key, answer in self.begin(images, texts, seeds).items()}
        return {key: scores for key, (scores, _) in answers.items()}, {key: g for key, (_, g) in answers.items()}

    def begin(
        self, images: torch.Tensor, texts: Mapping[str, Sequence[str]], seeds: Sequence[int] = ()
    ) -> dict[str, Answer]:
        """Ask, without waiting.

        Args:
            images: samples [B, ...], float32, or float16, in which case gradients come in as many bits.
            texts: reward key -> B texts, `Prompts` for one that is given what the pipeline was given.
            seeds: of each image, for what rewards draw; may be empty.

        Returns:
            Reward key -> what waits for its scores [B], and for d score_b / d sample_b or None, both float32.
        """
        shared = ray.put(np.ascontiguousarray(images.cpu().numpy()))
        answers: dict[str, Answer] = {}
        for keys in asked_together(self._rewards):
            call = self._rewards[keys[0]].score(
                shared,
                tuple(images.shape),
                {key: texts_of(texts[key], self._rewards[key].argument) for key in keys},
                {key: key in self._learned for key in keys},
                list(seeds),
            )
            answers |= {key: partial(self._answer, call, key) for key in keys}
        return answers

    def _answer(
        self, call: ray.ObjectRef[list[ray.ObjectRef[Any]]], key: str
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        [answer] = ray.get(call)
        found = ray.get(answer)
        scores, gradient = found[key] if isinstance(found, Mapping) else found
        if isinstance(gradient, tuple):
            gradient = from_half(*gradient)
        return self._here(scores), None if gradient is None else self._here(gradient)

    def _here(self, values: np.ndarray) -> torch.Tensor:
        # A copy, as what Ray hands over is read-only.
        return torch.from_numpy(np.array(values, dtype=np.float32)).to(self._device)

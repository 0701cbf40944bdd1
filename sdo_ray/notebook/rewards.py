"""Rewards in this process: any callable, or a reward of this package by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from rewards.registry import RewardError, create
from rewards.scoring import score_with_gradient
from sdo_ray.rollout.objective import ImageGradients, RewardFunction, Scores
from sdo_ray.settings import Problem, SettingsError

Given = str | Callable[..., torch.Tensor]
"""A name such as `alignment`, a reward (docs/rewards.md), or a function of images [B, 3, H, W] in [0, 1] and their
prompts that returns scores [B] with a graph."""


def local_rewards(given: Mapping[str, Given]) -> dict[str, Any]:
    """Each as a reward, by its key.

    Raises:
        SettingsError: there is none of a name, or one cannot be called.
    """
    if not isinstance(given, Mapping) or not given:
        got = f"got {type(given).__name__}" if given else "got none"
        raise SettingsError(Problem("rewards", got, fix='name at least one, such as {"vivid": vivid}'))
    found = {}
    for key, reward in given.items():
        if isinstance(reward, str):
            try:
                reward = create(reward)
            except RewardError as error:
                raise SettingsError(Problem(f"rewards.{key}", error.got, error.legal, error.fix)) from None
        if not callable(reward):
            got = f"{type(reward).__name__} cannot be called"
            fix = "give a reward, a function of images and prompts, or the name of a reward"
            raise SettingsError(Problem(f"rewards.{key}", got, fix=fix))
        # A class of its own, by whose name mistakes are said.
        found[key] = reward if hasattr(reward, "differentiable") else type(key, (_Function,), {})(reward)
    return found


def asked(rewards: Mapping[str, Any]) -> RewardFunction:
    """Asks each for its scores and its gradients at the images."""

    def ask(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Scores, ImageGradients]:
        both = {key: score_with_gradient(reward, images, list(prompts)) for key, reward in rewards.items()}
        return {key: scores for key, (scores, _) in both.items()}, {
            key: gradient for key, (_, gradient) in both.items()
        }

    return ask


class _Function:
    """A function of the user's as a reward."""

    differentiable = True
    modality = "any"

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self._function = function

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return self._function(images, prompts)

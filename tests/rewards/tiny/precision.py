"""Rewards in float64, where finite differences are exact enough to hold a gradient to."""

import copy
from typing import Any

import torch


def in_float64(reward: Any) -> Any:
    """A copy of a reward with every tensor and network in it in float64, as deep as classes of this package go."""
    return _doubled(copy.deepcopy(reward))


def _doubled(value: Any) -> Any:
    match value:
        case torch.Tensor():
            return value.double() if value.is_floating_point() else value
        case torch.nn.Module():
            return value.double()
        case list() | tuple():
            return type(value)(map(_doubled, value))
        case dict():
            return {key: _doubled(part) for key, part in value.items()}
    if type(value).__module__.partition(".")[0] == "rewards" and hasattr(value, "__dict__"):
        for key, part in list(vars(value).items()):
            object.__setattr__(value, key, _doubled(part))
    return value

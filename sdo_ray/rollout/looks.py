"""Looks at held-out prompts while a run trains: what is asked for, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdo_ray.prompts.inputs import Row


@dataclass(frozen=True)
class HeldOut:
    """What samplers look at besides, and when."""

    prompts: tuple[str, ...]
    indices: tuple[int, ...]
    """With the run's seed they fix the noise, that of the comparison at the run's end."""
    rows: frozenset[int]
    """First rows of the batches whose sampler also looks."""
    evaluators: Mapping[str, Any]
    """Reward actors by key, see `sdo_ray.rollout.reward_pool`."""
    inputs: tuple[Row, ...] = ()
    """What else the pipeline is given, of each prompt; empty if it is given no more."""


@dataclass(frozen=True)
class HeldOutMeans:
    """How one version of the policy does on the run's held-out prompts."""

    version: int
    """Updates in it; version 0 is the base."""
    means: dict[str, float]
    """Key of an evaluator -> its mean score."""

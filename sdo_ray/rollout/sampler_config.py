"""What the driver tells the samplers."""

from __future__ import annotations

from dataclasses import dataclass

from sdo_ray.models.settings import ModelSettings
from sdo_ray.prompts.inputs import Row
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings
from sdo_ray.rollout.looks import HeldOut
from sdo_ray.rollout.reward_settings import MixSettings
from sdo_ray.rollout.settings import Backward, LearningSamplerSettings, PlanSettings


@dataclass(frozen=True)
class SamplerConfig:
    """What a sampler needs to know."""

    seed: int
    """The run's seed."""
    model: ModelSettings
    sampling: LearnedSamplingSettings
    plan: PlanSettings
    mix: MixSettings
    samplers: LearningSamplerSettings
    backward: Backward
    max_policy_lag: int
    """Updates that a sampling policy may be behind."""
    anchor: float
    """Weight of an anchor to the base model; 0: none."""
    preview_prompts: tuple[str, ...]
    """Prompts of the preview grid."""
    preview_inputs: tuple[Row, ...]
    """Of each, see `PromptBatch`."""
    preview_rows: frozenset[int]
    """First rows of the batches whose sampler also makes the preview grid."""
    held_out: HeldOut | None = None
    """What samplers look at besides."""

"""Settings of the comparison of the aligned model with its base."""

from __future__ import annotations

from pydantic import Field

from sdo_ray.rollout.settings import RewardActorSettings
from sdo_ray.settings import Settings


class EvaluationSettings(Settings):
    """Base and aligned model on the same held-out prompts and noise."""

    prompts: str = Field(description="Parquet with held-out prompts. Relative paths start at the settings file.")
    column: str = Field("prompt", description="The column that holds them.")
    num_prompts: int = Field(64, ge=2, description="How many are used, the same at every run of one seed.")
    evaluators: list[RewardActorSettings] = Field(
        min_length=1, description="The judges: rewards that training does not see."
    )

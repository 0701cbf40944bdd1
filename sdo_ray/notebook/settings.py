"""The settings of a loop of one process."""

from __future__ import annotations

from pydantic import Field, field_validator

from sdo_ray.models.trained.lora_settings import LoraSettings
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings
from sdo_ray.rollout.settings import PlanSettings
from sdo_ray.settings import Settings
from sdo_ray.training.settings import TrainingSettings

TRAINING = ("anchor", "batch_size", "learning_rate", "max_grad_norm", "optimizer", "schedule", "weight_decay")
"""What it has of the section `training`; the rest is of runs."""


class AlignerSettings(Settings):
    """The sections of a settings file that it has."""

    lora: LoraSettings = Field(default_factory=LoraSettings)
    sampling: LearnedSamplingSettings = Field(default_factory=LearnedSamplingSettings)
    plan: PlanSettings = Field(default_factory=PlanSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)

    @field_validator("training")
    @classmethod
    def _is_of_a_loop(cls, training: TrainingSettings) -> TrainingSettings:
        if others := sorted(training.model_fields_set - set(TRAINING)):
            raise ValueError(
                f"{' and '.join(others)} {'are' if len(others) > 1 else 'is'} of runs, and a loop of one process has "
                f"{', '.join(TRAINING)}; leave it out, or use `sdo align`"
            )
        return training

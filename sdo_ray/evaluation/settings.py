"""Settings of the comparison of the aligned model with its base."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sdo_ray.settings import Settings


class EvaluatorSettings(Settings):
    """A reward used as a judge; training never sees held-out ones."""

    name: str = Field(description="A registered reward, or `package.module:Class`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Arguments of its constructor.")
    num_cpus: float = Field(1.0, ge=0, description="CPU cores of its actor.")
    num_gpus: float = Field(0.0, ge=0, description="GPUs of its actor.")
    runtime_env: dict[str, Any] = Field(default_factory=dict, description="Ray runtime environment of its actor.")


class EvaluationSettings(Settings):
    """Base and aligned model on the same held-out prompts and noise."""

    prompts: str = Field(description="Parquet with held-out prompts. Relative paths start at the settings file.")
    column: str = Field("prompt", description="The column that holds them.")
    num_prompts: int = Field(64, ge=2, description="How many are used, the same at every run of one seed.")
    evaluators: list[EvaluatorSettings] = Field(min_length=1, description="The judges.")

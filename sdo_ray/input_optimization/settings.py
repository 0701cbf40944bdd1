"""Settings of what is optimised, of the rows, and of the rewards that say what is better."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rewards.terms import check_mixing
from sdo_ray.models.settings import CheckpointBlocks, ComponentTypes, Dtype
from sdo_ray.rollout.reward_settings import CombinationSettings, RewardSettings
from sdo_ray.rollout.settings import InputColumns
from sdo_ray.settings import Settings, SettingsPath


class FrozenModelSettings(Settings):
    """The model, of which nothing is trained."""

    base: str = Field(description="`zoo://NAME`, a directory in diffusers format, or a hub id such as `org/name`.")
    dtype: Dtype = Field(
        "float32", description="Type of the weights and of sampling. What is optimised is always float32."
    )
    dtypes: ComponentTypes = Field(default_factory=dict)
    checkpoint_blocks: CheckpointBlocks = None


class RowSettings(Settings):
    """What there is to optimise: one image a row."""

    path: SettingsPath | None = Field(
        None,
        description="File with the rows: .parquet, .csv, .tsv, .json, .jsonl or .txt, or a directory of parquet "
        "files. A relative path starts at the settings file.",
    )
    given: list[dict[str, str]] = Field(
        default_factory=list,
        description="The rows themselves instead, such as `{prompt: red apple, target: green apple}`.",
    )
    column: str = Field("prompt", description="The column that holds the prompts.")
    inputs: InputColumns = Field(default_factory=dict)
    limit: int | None = Field(None, ge=1, description="Take the first so many rows; none: all.")


class TextMixSettings(CombinationSettings):
    """The rewards and how their gradients are combined."""

    terms: list[RewardSettings] = Field(min_length=1, description="The rewards.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_mixing([term.term for term in self.terms], self.mixing)
        return self


class OptimizationSettings(Settings):
    """What is optimised, and how: Adam, for each row on its own."""

    variable: Literal["latents", "prompt_embeds", "guidance_scale"] = Field(
        description="The initial noise, the prompts' embeddings, or the guidance scale."
    )
    iterations: int = Field(50, ge=1, description="Steps of Adam a row takes at most.")
    learning_rate: float = Field(gt=0, description="Adam's step size, in units of the variable.")
    max_grad_norm: float = Field(1.0, gt=0, description="A row's gradient is clipped to this norm.")
    keep_norm: bool = Field(
        False,
        description="Scale each row's variable back to its initial norm after every step. It keeps latents on the "
        "sphere where noise lies, and the model with noise as it knows it.",
    )
    max_change: float | None = Field(
        None,
        gt=0,
        description="How far a row's variable may go from where it started, as a share of its initial norm; none: "
        "anywhere.",
    )
    patience: int | None = Field(
        None, ge=1, description="A row stops after so many iterations without a better mixed reward; none: it goes on."
    )

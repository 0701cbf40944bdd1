"""Settings of the prompts, of sampling, of the gradient estimator and of the rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field

from rewards.terms import RewardTerm
from sdo_ray.settings import PathsAmong, Settings, SettingsPath

Backward = Literal["sampler", "trainer"]
"""Where the denoiser's backward pass runs."""


FILES = {
    "alignment": {"weights"},
    "gram_style": {"image", "picture"},
    "heldout_alignment": {"weights"},
    "heldout_preference": {"weights"},
    "preference": {"weights"},
}
"""Reward -> its options that are paths."""


def path_options(reward: Mapping[str, Any]) -> set[str]:
    """The options of a reward that are paths, by any name that they have.

    Args:
        reward: its section, as it was given.
    """
    return FILES.get(str(reward.get("name")), set())


class PromptSettings(Settings):
    """Where prompts come from."""

    train: SettingsPath = Field(
        description="File of the prompts to learn on: .parquet, .csv, .tsv, .json, .jsonl or .txt, or a directory of "
        "parquet files. Relative paths start at the settings file."
    )
    column: str = Field("prompt", description="The column that holds the prompts.")


class SamplingSettings(Settings):
    """How the pipeline is called."""

    num_inference_steps: int = Field(50, ge=1, description="Sampling steps N.")
    guidance_scale: float = Field(5.0, ge=0, description="Classifier-free guidance.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of the pipeline's call, such as `height`, `width` or `negative_prompt`.",
    )

    def pipeline_call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Keyword arguments for the pipeline to draw one image a prompt."""
        # diffusers wants as many negative prompts as prompts; one in the settings is for all images.
        options = {
            name: [value] * len(prompts) if name.startswith("negative_prompt") and isinstance(value, str) else value
            for name, value in self.options.items()
        }
        return {
            "prompt": list(prompts),
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            **options,
        }


class PlanSettings(Settings):
    """The reward-gradient estimator, see docs/method.md."""

    name: str = Field("sdo", description="A registered plan, or `package.module:function`.")
    options: dict[str, Any] = Field(default_factory=dict, description="The plan's own options, such as `K: 1`.")


class RewardActorSettings(Settings):
    """A reward, and the actor that computes it."""

    name: str = Field(description="A registered reward, or `package.module:Class`.")
    options: Annotated[dict[str, Any], PathsAmong(path_options)] = Field(
        default_factory=dict, description="Arguments of the reward's constructor."
    )
    num_cpus: float = Field(1.0, ge=0, description="CPU cores of its actor, and its torch threads.")
    num_gpus: float = Field(0.0, ge=0, description="GPUs of its actor.")
    runtime_env: dict[str, Any] = Field(
        default_factory=dict,
        description="Ray runtime environment of its actor, for rewards with packages of their own.",
    )

    @property
    def key(self) -> str:
        """What its actor and its scores are called."""
        return self.name


class RewardSettings(RewardActorSettings):
    """A reward to learn from, or to watch."""

    weight: float = Field(1.0, description="Its share of the mixed reward; 0 watches it without learning from it.")
    cap: float | None = Field(
        None, description="Scores above this count as this and give no gradient: a guard against over-optimisation."
    )

    @property
    def key(self) -> str:
        """What its actor and its scores are called."""
        return self.term.key

    @property
    def term(self) -> RewardTerm:
        """Its part in the mix: the fields of a `RewardTerm` that these settings have."""
        own = type(self).model_fields
        return RewardTerm(
            **{field.name: getattr(self, field.name) for field in fields(RewardTerm) if field.name in own}
        )


class MixSettings(Settings):
    """The rewards and how their gradients are combined."""

    terms: list[RewardSettings] = Field(min_length=1, description="The rewards.")
    normalize: bool = Field(
        False,
        description="Bring every reward's image gradients to the same size before weighting, so that weights compare "
        "pulls rather than units of score.",
    )


class SamplerSettings(Settings):
    """The actors that sample and differentiate."""

    count: int = Field(1, ge=1, description="Number of sampler actors.")
    batch_size: int = Field(8, ge=1, description="Images a sampler makes at once.")
    num_cpus: float = Field(1.0, ge=0, description="CPU cores of each, and its torch threads.")
    num_gpus: float = Field(0.0, ge=0, description="GPUs of each.")

"""Settings of comparisons: the one that closes an alignment run, and those of `sdo evaluate`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from sdo_ray.evaluation.feature_registry import path_options
from sdo_ray.models.settings import Dtype
from sdo_ray.rollout.reward_settings import RewardActorSettings
from sdo_ray.rollout.settings import InputColumns
from sdo_ray.settings import ON_PURPOSE, PathsAmong, Settings, SettingsPath


class WatchSettings(Settings):
    """Looks at the policy while it is trained, on held-out prompts, by the evaluators."""

    every: Annotated[int, ON_PURPOSE] = Field(
        0,
        ge=0,
        description="Updates between two looks, the first of which is at the base; 0 does not look. A sampler makes "
        "the images between two batches.",
    )
    num_prompts: int = Field(8, ge=1, description="How many of the held-out prompts, with the noise of the comparison.")
    rules: Annotated[list[str], ON_PURPOSE] = Field(
        default_factory=list,
        description="Rules, as of `sdo promote`, such as `alignment >= 0.95 * base`. The first look by which one does "
        "not hold ends training, and the newest version that passed a look is handed out.",
    )

    @model_validator(mode="after")
    def _rules_are_looked_at(self) -> Self:
        if self.rules and not self.every:
            raise ValueError("rules are given and every is 0, so nothing would be looked at; give every")
        return self


class EvaluationSettings(Settings):
    """Base and aligned model on the same held-out prompts and noise."""

    prompts: SettingsPath = Field(
        description="File of held-out prompts: .parquet, .csv, .tsv, .json, .jsonl or .txt, or a directory of parquet "
        "files. Relative paths start at the settings file."
    )
    column: str = Field("prompt", description="The column that holds them.")
    num_prompts: int = Field(64, ge=2, description="How many are used, the same at every run of one seed.")
    evaluators: list[RewardActorSettings] = Field(
        min_length=1, description="The evaluators: rewards that training does not see."
    )
    watch: WatchSettings = Field(default_factory=WatchSettings, description="Looks during training.")

    @model_validator(mode="after")
    def _watches_some_of_them(self) -> Self:
        if self.watch.every and self.watch.num_prompts > self.num_prompts:
            raise ValueError(
                f"watch.num_prompts is {self.watch.num_prompts}, of num_prompts = {self.num_prompts}; use at most that"
            )
        return self

    cheap_steps: bool = Field(
        False,
        description="Whether `sampling.cache` and `fast_copy` are for the comparison too, and for what is registered, "
        "which is made so wherever it is used. By default the model itself computes every step of both.",
    )


class ModelChoice(Settings):
    """A text instead of the section is its `model`."""

    model: str | None = Field(
        None,
        description="`zoo://NAME`, the directory of a complete pipeline in diffusers format, a hub id such as "
        "`org/name`, the directory of a finished `sdo align` run, or `models:/NAME/VERSION` or `models:/NAME@ALIAS` of "
        "MLflow's registry. Without one, the base's.",
    )
    adapter: str | None = Field(
        None, description="A LoRA on it: a directory with `pytorch_lora_weights.safetensors`, or a .safetensors file."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {"model": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.model is None and self.adapter is None:
            raise ValueError("name a model, an adapter, or both")
        return self


class ModelsSettings(Settings):
    """The models under comparison."""

    base: ModelChoice = Field(description="What the others are measured against.")
    candidate: ModelChoice = Field(description="The model in question.")
    champion: ModelChoice | None = Field(None, description="The model that it would replace; there need be none.")
    dtype: Dtype = Field("float32", description="Type of the weights of all.")
    dtypes: dict[str, Dtype] = Field(
        default_factory=dict,
        description="Types of single components of all, as `model.dtypes` of an alignment run, such as `vae: float32`.",
    )

    @model_validator(mode="after")
    def _base_is_a_model(self) -> Self:
        if self.base.model is None:
            raise ValueError("base names no model; an adapter alone is none")
        return self


class HeldoutSettings(Settings):
    """Prompts that no model was trained on."""

    old_names: ClassVar[dict[str, str]] = {"pictures_per_prompt": "images_per_prompt"}

    heldout: SettingsPath = Field(
        description="File: .parquet, .csv, .tsv, .json, .jsonl or .txt, or a directory of parquet "
        "files. Relative paths start at the settings file."
    )
    column: str = Field("prompt", description="The column that holds the prompts.")
    category: str = Field(
        "category", description="The column with their categories, for numbers by category; there need be none."
    )
    inputs: InputColumns = Field(default_factory=dict)
    num_prompts: int = Field(64, ge=2, description="How many are used, the same ones for a seed.")
    images_per_prompt: int = Field(
        1, ge=1, description="Images of each prompt, with different noise; diversity takes two or more."
    )


class FeatureSettings(Settings):
    """The network whose feature vectors give diversity, distance from the base and the distance of image sets."""

    name: str = Field(
        "efficientnet",
        description="`efficientnet` (EfficientNet-Lite0, of the extra `emoji`), `transformers` (a vision network, "
        "its `model` among the options: DINOv2, CLIP, ...), or `package.module:Class`.",
    )
    options: Annotated[dict[str, Any], PathsAmong(path_options)] = Field(
        default_factory=dict, description="Arguments of its constructor."
    )
    num_cpus: float = Field(1.0, ge=0, description="CPU cores of its actor, and its torch threads.")
    num_gpus: float = Field(0.0, ge=0, description="GPUs of its actor.")
    runtime_env: dict[str, Any] = Field(default_factory=dict, description="Ray runtime environment of its actor.")


class ReferenceSettings(Settings):
    """Real images that the models' image sets are measured against."""

    old_names: ClassVar[dict[str, str]] = {"num_pictures": "num_images"}

    path: SettingsPath = Field(description="Parquet file or directory. Relative paths start at the settings file.")
    column: str = Field("image", description="The column with the images' files as bytes, or as `{bytes: ...}`.")
    num_images: int = Field(2000, ge=2, description="How many are used at most, the same ones for a seed.")


class ReportSettings(Settings):
    """The page for people."""

    old_names: ClassVar[dict[str, str]] = {"picture_size": "image_size"}

    rows: int = Field(
        48,
        ge=1,
        description="Prompts and noises whose images are in it, from the first on; all are in `pictures.parquet`.",
    )
    image_size: int = Field(256, ge=32, le=256, description="Longest side of an image in it, in pixels.")

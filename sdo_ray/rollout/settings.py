"""Settings of the prompts, of sampling, of the gradient estimator and of the rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from rewards.frames import Combine as FramesCombined
from rewards.frames import Frames, Take
from rewards.modality import Modality, named
from rewards.pulls import Normalize
from rewards.registry import check, path_options, rename_options, spec_of
from rewards.spec import RewardSpec
from rewards.terms import Combine, Mixing, RewardTerm, Smoothing, check_gradient, check_mixing, check_weight
from sdo_ray import policy_gradient
from sdo_ray.cheap_steps.settings import CheapStepsSettings
from sdo_ray.prompts.inputs import Row, call_arguments
from sdo_ray.settings import MAY_CHANGE, PathsAmong, Settings, SettingsPath

Backward = Literal["sampler", "trainer"]
"""Where the denoiser's backward pass runs."""
GradientType = Literal["float32", "bfloat16"]
"""What a gradient travels as; bfloat16 has float32's range."""
Decode = Literal["whole", "slices", "tiles"]
"""How an autoencoder decodes."""
KeptGraph = Literal["retain", "recompute"]
"""Whether a batch that waits for its rewards holds the networks' activations, or has them made again."""


def _path_options(reward: Mapping[str, Any]) -> set[str]:
    """Those options of a reward, a section as it was given, that are paths."""
    return path_options(str(reward.get("name")))


class PromptSettings(Settings):
    """Where prompts come from."""

    train: SettingsPath = Field(
        description="File of the prompts to learn on: .parquet, .csv, .tsv, .json, .jsonl or .txt, or a directory of "
        "parquet files. Relative paths start at the settings file."
    )
    column: str = Field("prompt", description="The column that holds the prompts.")


class InputSettings(PromptSettings):
    """Where prompts come from, and what else the pipeline is given with them."""

    inputs: dict[str, str] = Field(
        default_factory=dict,
        description="Arguments of the pipeline's call and the columns that they come from, here and among the held-out "
        "prompts: `{image: source, mask_image: mask}`. Columns of files (images; sounds as WAV), whose relative paths "
        "start where the prompts' file is, of numbers, or of texts.",
    )


class SamplingSettings(CheapStepsSettings):
    """How the pipeline is called."""

    num_inference_steps: int = Field(50, ge=1, description="Sampling steps N.")
    guidance_scale: float = Field(5.0, ge=0, description="Classifier-free guidance.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of the pipeline's call, such as `height`, `width` or `negative_prompt`.",
    )
    decode: Decode = Field(
        "whole",
        description="How latents are decoded: all images of a batch at once, `slices` one after the other, `tiles` in "
        "overlapping tiles, which takes the least memory and shows faintly where they meet.",
    )

    _example: Row = PrivateAttr(default_factory=dict)

    def with_example(self, row: Row) -> Self:
        """The same for a pipeline that is given inputs with each prompt, such as these."""
        made = self.model_copy()
        made._example = row
        return made

    def pipeline_call(self, prompts: Sequence[str], inputs: Sequence[Row] = ()) -> dict[str, Any]:
        """Keyword arguments for the pipeline to draw one image a prompt.

        Args:
            prompts: B prompts.
            inputs: of each; none: the example's, of a pipeline that takes some.
        """
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
            **call_arguments(inputs or ([self._example] * len(prompts) if self._example else [])),
        }


class PlanSettings(Settings):
    """The estimator: of rewards' gradients, see docs/method.md, or for those without, see docs/black-box.md."""

    name: str = Field(
        "sdo",
        description="A registered plan, or `package.module:function`. For rewards without a gradient: `group`, or "
        "another of docs/black-box.md.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="The plan's own options, such as `K: 1`.")

    @property
    def is_policy_gradient(self) -> bool:
        """Whether rewards without a gradient can teach by it."""
        return self.name in policy_gradient.available()


class SmoothSettings(Settings):
    """Averages a reward's image gradients over changed copies of each image, see docs/rewards.md."""

    shifts: int = Field(0, ge=0, description="Pixels by which a copy is moved at most, in each direction.")
    noise: float = Field(
        0.0, ge=0, description="Standard deviation of the noise on a copy, whose values are in 0 .. 1."
    )
    copies: int = Field(4, ge=2, description="Images that the mean is over, the image itself among them.")

    @property
    def smoothing(self) -> Smoothing:
        """What the actor is given."""
        return Smoothing(self.shifts, self.noise, self.copies)

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.smoothing  # noqa: B018 - says what cannot be
        return self


class FramesSettings(Settings):
    """Applies a reward of images to videos. A text or number instead of the section is its `take`."""

    take: Take = Field(
        "all",
        union_mode="left_to_right",
        description="Frames that are scored: `first`, `all`, or how many evenly spaced ones.",
    )
    combine: FramesCombined = Field(
        "mean", description="What is made of their scores: `mean`, or `minimum`, by which the worst frame is learned."
    )

    @property
    def frames(self) -> Frames:
        """What the actor is given."""
        return Frames(self.take, self.combine)

    @model_validator(mode="before")
    @classmethod
    def _from_take(cls, given: Any) -> Any:
        return {"take": given} if isinstance(given, str | int) else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.frames  # noqa: B018 - says what cannot be
        return self


class RewardActorSettings(Settings):
    """A reward, and the actor that computes it."""

    name: str = Field(description="A registered reward, or `package.module:Class`.")
    label: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        description="What its scores are called, for a reward that is named twice, with other options; none: its name.",
    )
    options: Annotated[dict[str, Any], PathsAmong(_path_options)] = Field(
        default_factory=dict, description="Arguments of the reward's constructor."
    )
    num_cpus: Annotated[float, MAY_CHANGE] = Field(
        1.0, ge=0, description="CPU cores of its actor, and its torch threads."
    )
    num_gpus: Annotated[float, MAY_CHANGE] = Field(0.0, ge=0, description="GPUs of its actor.")
    runtime_env: dict[str, Any] = Field(
        default_factory=dict,
        description="Ray runtime environment of its actor, for rewards with packages of their own.",
    )
    count: Annotated[int, MAY_CHANGE] = Field(
        1, ge=1, description="Replicas of its actor; whichever is free takes the next batch."
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Batches of several samplers that wait are scored as one of up to so many images; none: each by "
        "itself, as it takes for results that can be reproduced to the bit.",
    )
    timeout: Annotated[float, MAY_CHANGE] = Field(
        300.0, gt=0, description="Seconds for the scores of a batch; then its actor is replaced, and it is tried again."
    )
    start_timeout: Annotated[float, MAY_CHANGE] = Field(
        900.0, gt=0, description="Seconds until its actor is ready, packages installed."
    )
    max_restarts: Annotated[int, MAY_CHANGE] = Field(
        3, ge=0, description="How often each actor is replaced within ten minutes."
    )

    frames: FramesSettings | None = Field(
        None, description="Of videos, for a reward that judges images; none: it is given what the model makes."
    )

    @property
    def seen_frames(self) -> Frames | None:
        """Which frames of a video it is given; None: it is given samples as they are."""
        return None if self.frames is None else self.frames.frames

    @property
    def key(self) -> str:
        """What its actor and its scores are called."""
        return self.label or self.name

    @property
    def smoothing(self) -> Smoothing | None:
        """How its gradients are smoothed; nothing is learned from an evaluator."""
        return None

    def check(self, prompts: Sequence[str] = ()) -> None:
        """Refuse a reward that cannot be, or not so, without loading its weights or importing one with a `runtime_env`.

        Args:
            prompts: what it will be given, where that is known.

        Raises:
            ValueError: see `rewards.registry.check` and `check_role`. What only its actor knows, it says at its start.
        """
        check(self.name, self.options, prompts, self.runtime_env)
        if (spec := spec_of(self.name, self.runtime_env)) is not None:
            self.check_role(spec)

    def check_role(self, spec: RewardSpec) -> None:
        """Refuse what cannot be an evaluator.

        Raises:
            ValueError: its scores are not of single images.
        """
        if spec.batchwise:
            raise ValueError(
                f"reward {self.name!r} scores batches as a whole, and models are compared image by image; name another"
            )

    def check_modality(self, spec: RewardSpec, made: Modality) -> None:
        """Refuse a reward that judges other samples than the model makes.

        Args:
            spec: of the reward.
            made: what the model makes; "any": it is not known.

        Raises:
            ValueError: they do not match, or what is set for them does not.
        """
        if self.frames is not None and spec.modality not in ("image", "any"):
            raise ValueError(f"reward {self.name!r} judges {named(spec.modality)}, and frames are for one of images")
        judged: Modality = spec.modality if self.frames is None else "video"
        if self.smoothing is not None and judged == "audio":
            raise ValueError(f"reward {self.name!r} judges {named(judged)}, and smooth is for images and videos")
        if "any" in (judged, made) or judged == made:
            return
        fix = "name another"
        if (judged, made) == ("image", "video"):
            fix = "give its frames, such as `frames: all`, or name another"
        elif self.frames is not None:
            fix = "remove its frames"
        raise ValueError(f"reward {self.name!r} judges {named(judged)}, and the model makes {named(made)}; {fix}")

    def check_gradient(self, spec: RewardSpec) -> None:
        """Refuse what is to teach by a gradient, and has none; an evaluator need not.

        Raises:
            ValueError: see `rewards.terms.check_gradient`.
        """

    @model_validator(mode="before")
    @classmethod
    def _options_by_their_names_now(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("options"), dict):
            return given
        return given | {"options": rename_options(str(given.get("name")), given["options"])}


class RewardSettings(RewardActorSettings):
    """A reward to learn from, or to watch."""

    weight: float = Field(1.0, description="Its share of the mixed reward; 0 watches it without learning from it.")
    cap: float | None = Field(
        None,
        description="Scores above this, or below it where the weight is negative, count as this and give no gradient: "
        "a guard against over-optimisation.",
    )
    target: float | None = Field(
        None,
        description="A score to come near to, from above and below, instead of the more the better. Not with a cap.",
    )
    when_absent: Literal["stop", "go_on"] = Field(
        "stop",
        description="What becomes of the run when it is given up, after `max_restarts`: `stop` ends it, `go_on` learns "
        "from the other rewards, and says so. A batch that it alone does not answer is skipped, or, with `go_on` or "
        "weight 0, has no score of it.",
    )
    smooth: SmoothSettings | None = Field(
        None,
        description="Learn from the mean of its image gradients over copies of each image, moved or noisy; none: from "
        "the plain gradient.",
    )

    @property
    def smoothing(self) -> Smoothing | None:
        """How its gradients are smoothed."""
        return None if self.smooth is None else self.smooth.smoothing

    @property
    def key(self) -> str:
        """What its actor and its scores are called."""
        return self.term.key

    def check_role(self, spec: RewardSpec) -> None:
        """Refuse to learn from what cannot teach, see `rewards.terms.check_weight`."""
        check_weight(self.term, spec)

    def check_gradient(self, spec: RewardSpec) -> None:
        """See `rewards.terms.check_gradient`."""
        check_gradient(self.term, spec)

    @property
    def term(self) -> RewardTerm:
        """Its part in the mix: the fields of a `RewardTerm` that these settings have."""
        own = type(self).model_fields
        return RewardTerm(
            **{field.name: getattr(self, field.name) for field in fields(RewardTerm) if field.name in own}
        )


class CombinationSettings(Settings):
    """How several rewards' gradients are combined."""

    normalize: Normalize | None = Field(
        None,
        description="What weights are in units of. `gradients`: the size of each reward's image gradients, so that "
        "they compare pulls; `scores`: the standard deviation of its scores; none: its scores.",
    )
    combine: Combine = Field(
        "sum",
        description="What is done where rewards pull an image different ways. `sum`: nothing; `pcgrad`: the part of "
        "each that opposes another is taken away; `mgda`, of two rewards: only what is good for both.",
    )

    @property
    def mixing(self) -> Mixing:
        """What `rewards.mix` is given."""
        return Mixing(normalize=self.normalize, combine=self.combine)

    @field_validator("normalize", mode="before")
    @classmethod
    def _as_in_earlier_versions(cls, given: Any) -> Any:
        return {True: "gradients", False: None}.get(given, given) if isinstance(given, bool) else given


class MixSettings(CombinationSettings):
    """The rewards and how their gradients are combined."""

    terms: list[RewardSettings] = Field(min_length=1, description="The rewards.")
    floor: float = Field(
        0.1,
        ge=0,
        le=1,
        description="With `normalize`: sizes and deviations, which are those of the run so far, do not fall below this "
        "share of the largest that an update has had, so that a reward that is satisfied is not blown up.",
    )

    @property
    def mixing(self) -> Mixing:
        """What `rewards.mix` is given."""
        return Mixing(self.normalize, self.floor, self.combine)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_mixing([term.term for term in self.terms], self.mixing)
        return self


class SamplerSettings(Settings):
    """The actors that sample and differentiate."""

    count: Annotated[int, MAY_CHANGE] = Field(1, ge=1, description="Number of sampler actors.")
    batch_size: int = Field(8, ge=1, description="Images a sampler makes at once.")
    num_cpus: Annotated[float, MAY_CHANGE] = Field(1.0, ge=0, description="CPU cores of each, and its torch threads.")
    num_gpus: Annotated[float, MAY_CHANGE] = Field(
        0.0, ge=0, le=1, description="GPUs of each; at most 1, as a sampler computes on one."
    )
    tf32: bool = Field(
        True,
        description="Whether GPUs may round what float32 products multiply to 10 bits (TensorFloat-32), for speed.",
    )
    channels_last: bool = Field(
        False, description="Whether weights lie in memory with the channels last, as tensor cores read convolutions."
    )
    compile: bool = Field(
        False,
        description="Whether denoisers are compiled (`torch.compile`, block by block where diffusers can), which takes "
        "its time in each sampler's first batch.",
    )


class LearningSamplerSettings(SamplerSettings):
    """The actors that sample and differentiate, for rewards that may be slow."""

    at_least: Annotated[int | None, MAY_CHANGE] = Field(
        None,
        ge=1,
        description="How many of `count` there must be room for at a start; the others join when a cluster that grows "
        "has room for them. None: all.",
    )

    @property
    def rows_per_contribution(self) -> int:
        """Rows that a sampler makes one contribution of."""
        return self.batch_size * self.accumulate

    in_flight: Annotated[int, MAY_CHANGE] = Field(
        2,
        ge=1,
        description="Batches in the hands of each at once: while one waits for its rewards, the next is sampled. What "
        "memory a waiting one holds is for `sampling.kept_graph`.",
    )
    timeout: Annotated[float, MAY_CHANGE] = Field(
        3600.0,
        gt=0,
        description="Seconds for sampling a batch, and again for its backward pass; then the actor is replaced, and "
        "the batch tried again.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="Batches whose gradients a sampler adds up before they travel: an update then takes as many fewer "
        "messages, and its trainers less work.",
    )
    gradient_dtype: GradientType = Field(
        "float32",
        description="What gradients travel as to the trainers, which add them up in float32. bfloat16 halves them, "
        "with a relative error of up to 0.4 % of each value.",
    )

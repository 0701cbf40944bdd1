"""Settings of the rewards: what each is, where it is computed, and how they are mixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rewards.frames import Combine as FramesCombined
from rewards.frames import Frames, Take
from rewards.modality import SAMPLE_RATE, Made, Modality, named
from rewards.pulls import Normalize
from rewards.registry import check, path_options, rename_options, spec_of
from rewards.spec import RewardSpec
from rewards.terms import Combine, Mixing, RewardTerm, Smoothing, called, check_gradient, check_mixing, check_weight
from sdo_ray.settings import MAY_CHANGE, ON_PURPOSE, PathsAmong, Settings


def _path_options(reward: Mapping[str, Any]) -> set[str]:
    """Those options of a reward, a section as it was given, that are paths."""
    return path_options(str(reward.get("name")))


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
    text: str | None = Field(
        None,
        description="Column of the prompts' file, or of the rows, with the text or file that the reward is given "
        "instead of the prompt. Its scores are then called `NAME@COLUMN`.",
    )
    options: Annotated[dict[str, Any], PathsAmong(_path_options)] = Field(
        default_factory=dict, description="Arguments of the reward's constructor."
    )
    num_cpus: Annotated[float, MAY_CHANGE] = Field(
        1.0, ge=0, description="CPU cores of its actor, and its torch threads."
    )
    num_gpus: Annotated[float, MAY_CHANGE] = Field(0.0, ge=0, description="GPUs of its actor.")
    offload: Annotated[bool, MAY_CHANGE] = Field(
        False,
        description="Whether its weights are on its GPU only while it scores, and in main memory otherwise: for a "
        "GPU that others compute on meanwhile. They are loaded there first, and copied there for every batch, of which "
        "all rewards are asked at once.",
    )
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
        3,
        ge=0,
        description="How often each actor is replaced within ten minutes; and `count` times as often, in a row without "
        "an answer, the actor of one place.",
    )

    share: str | None = Field(
        None,
        pattern=r"^[\w.-]+$",
        description="A name of your choice: rewards with the same one, which rest on one network, are computed by one "
        "actor, with its weights loaded once and its forward pass made once. None: an actor of its own.",
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
        return called(self.name, self.label, self.text)

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
            self._check_offload(spec)

    def _check_offload(self, spec: RewardSpec) -> None:
        if self.offload and "device" not in spec.options:
            raise ValueError(f"reward {self.name!r} has no weights on a GPU that offload could free; leave offload out")

    def check_role(self, spec: RewardSpec) -> None:
        """Refuse what cannot be an evaluator.

        Raises:
            ValueError: its scores are not of single images.
        """
        if spec.batchwise:
            raise ValueError(
                f"reward {self.name!r} scores batches as a whole, and models are compared image by image; name another"
            )

    def check_modality(self, spec: RewardSpec, made: Made) -> None:
        """Refuse a reward that judges other samples than the model makes.

        Args:
            spec: of the reward.
            made: what the model makes.

        Raises:
            ValueError: they do not match, or what is set for them does not.
        """
        if self.frames is not None and spec.modality not in ("image", "any"):
            raise ValueError(f"reward {self.name!r} judges {named(spec.modality)}, and frames are for one of images")
        judged: Modality = spec.modality if self.frames is None else "video"
        if self.smoothing is not None and judged == "audio":
            raise ValueError(f"reward {self.name!r} judges {named(judged)}, and smooth is for images and videos")
        if made.modality == "audio":
            self._check_rate(spec, made.sampling_rate)
        if "any" in (judged, made.modality) or judged == made.modality:
            return
        fix = "name another"
        if (judged, made.modality) == ("image", "video"):
            fix = "give its frames, such as `frames: all`, or name another"
        elif self.frames is not None:
            fix = "remove its frames"
        raise ValueError(
            f"reward {self.name!r} judges {named(judged)}, and the model makes {named(made.modality)}; {fix}"
        )

    def _check_rate(self, spec: RewardSpec, made: int | None) -> None:
        given = self.options.get(SAMPLE_RATE)
        if given is not None and made not in (None, given):
            raise ValueError(
                f"reward {self.name!r}: its option {SAMPLE_RATE} is {given}, and the model's sounds have {made} Hz; "
                "remove it"
            )
        if SAMPLE_RATE in spec.options and made is None and given is None:
            raise ValueError(
                f"reward {self.name!r} has to know how fast the model's sounds are, which no configuration of the "
                f"model says; give its option {SAMPLE_RATE}, in Hz"
            )

    def check_gradient(self, spec: RewardSpec) -> None:
        """Refuse what is to teach by a gradient, and has none; an evaluator need not.

        Raises:
            ValueError: see `rewards.terms.check_gradient`.
        """

    @model_validator(mode="after")
    def _has_a_gpu_to_leave(self) -> Self:
        if self.offload and not self.num_gpus:
            raise ValueError(
                f"offload frees a GPU's memory between batches, and num_gpus of {self.key!r} is 0; give it a part of a "
                "GPU, such as `num_gpus: 0.5`, or leave offload out"
            )
        return self

    @model_validator(mode="after")
    def _shares_plain_images(self) -> Self:
        if self.share is not None and (self.frames is not None or self.smoothing is not None):
            given = "frames" if self.frames is not None else "smooth"
            raise ValueError(f"rewards that share an actor look at the same samples; {given} makes others, drop one")
        return self

    @model_validator(mode="before")
    @classmethod
    def _options_by_their_names_now(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("options"), dict):
            return given
        return given | {"options": rename_options(str(given.get("name")), given["options"])}


SHARED = (
    "num_cpus",
    "num_gpus",
    "offload",
    "runtime_env",
    "count",
    "batch_size",
    "timeout",
    "start_timeout",
    "max_restarts",
)
"""Settings of the actor, which rewards with the same `share` have in common."""


def check_shares(rewards: Sequence[RewardActorSettings]) -> None:
    """Check that rewards which share an actor say the same of it.

    Raises:
        ValueError: naming the setting and the first two that differ.
    """
    first: dict[str, RewardActorSettings] = {}
    for reward in rewards:
        if reward.share is None:
            continue
        other = first.setdefault(reward.share, reward)
        for name in SHARED:
            if getattr(reward, name) != (wanted := getattr(other, name)):
                raise ValueError(
                    f"{other.key!r} and {reward.key!r} share an actor ({reward.share}), and {name} is its: got "
                    f"{wanted!r} and {getattr(reward, name)!r}; give both the same"
                )


class RewardSettings(RewardActorSettings):
    """A reward to learn from, or to watch."""

    weight: Annotated[float, ON_PURPOSE] = Field(
        1.0, description="Its share of the mixed reward; 0 watches it without learning from it."
    )
    cap: Annotated[float | None, ON_PURPOSE] = Field(
        None,
        description="Scores above this, or below it where the weight is negative, count as this and give no gradient: "
        "a guard against over-optimisation.",
    )
    target: float | None = Field(
        None,
        description="A score to come near to, from above and below, instead of the more the better. Not with a cap.",
    )
    weigh_by: str | None = Field(
        None,
        description="Column of the prompts' file with numbers from 0 on, by which the weight is multiplied for each "
        "prompt; 0: the reward does not count for it. None: all prompts alike.",
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

    @property
    def looks_at_some_frames(self) -> bool:
        """Whether what is learned from looks at some frames of a video, and at no others."""
        seen = [term.seen_frames for term in self.terms if term.weight]
        return all(frames is not None and frames.are_some for frames in seen)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_mixing([term.term for term in self.terms], self.mixing)
        return self

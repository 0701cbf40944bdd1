"""Settings of steps that cost less."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sdo_ray.cheap_steps.schedule_file import read_schedule
from sdo_ray.settings import Settings, SettingsPath
from sdo_ray.settings.paths import at_home

Dtype = Literal["float32", "bfloat16", "float16"]
Quantize = Literal["int8", "int4", "int8-dynamic"]

OURS = ("taylor", "cg-taylor", "guidance", "deepcache", "faster-diffusion", "modules")
"""Caches that are ours: modules are held, for any model that has them."""
DIFFUSERS = ("taylorseer", "pab", "first-block", "mag-cache", "faster-cache")
"""Caches that diffusers has for its transformers."""


class CacheSettings(Settings):
    """Steps at which the denoiser, or parts of it, are not run but continued from earlier steps; see
    docs/cheap-steps.md. The kept step is always computed in full. A text instead of the section is its `name`."""

    name: Literal[*OURS, *DIFFUSERS] = Field(  # type: ignore[valid-type]
        description="`taylor`: the denoiser's output is continued; for any model. `cg-taylor`: likewise where the "
        "first block's continuation is near to what it gives, else all is computed. `guidance`: what guidance leads "
        "away from is continued, and the prompt's branch computed. `deepcache`, `faster-diffusion`: "
        "all but the outermost blocks of a UNet are held, or its encoder. `modules`: those of `modules`. "
        "`taylorseer`, `pab`, `first-block`, `mag-cache`, `faster-cache`: diffusers' own, for transformers that have "
        "one."
    )
    every: int = Field(3, ge=2, description="The denoiser is computed at every so many steps, from the first on.")
    last: int = Field(1, ge=0, description="So many steps at the end are computed too: they decide most of a gradient.")
    steps: list[int] | None = Field(
        None, description="The numbers of the steps that are computed, from 0, in place of `every` and `last`."
    )
    of: int | None = Field(
        None,
        ge=2,
        description="The number of steps that `steps` are counted in. With another `num_inference_steps` those at the "
        "same share of the way are computed; none: `steps` are for `num_inference_steps` alone.",
    )
    order: int | None = Field(
        None,
        ge=0,
        le=3,
        description="Degree of the polynomial by which outputs are continued; 0 repeats the last. None: 1 with "
        "`taylor`, `cg-taylor` and `guidance`, else 0.",
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        description="Nothing is held while what a computed step was continued to be is further off than this share of "
        "what it is; none: the schedule alone decides. With `cg-taylor`: what the first block may be off at a step "
        "that is held; none: 0.1.",
    )
    modules: list[str] = Field(
        default=[],
        description="With `name: modules`: regular expressions of whole names of the denoiser's modules that are held, "
        r"such as `transformer_blocks\.\d+\.attn`.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="With one of diffusers' caches: arguments of its configuration class.",
    )
    schedule: SettingsPath | None = Field(
        None,
        description="A file of `sdo schedule`, in place of all other settings here but `cost` and `tolerance`, which "
        "are read from it once. Relative paths start at the settings file.",
    )
    cost: float | None = Field(
        None,
        gt=0,
        description="With `schedule`: the nearest to exact steps is taken of what costs at most this share of them.",
    )

    @property
    def is_ours(self) -> bool:
        """Whether modules are held, rather than a cache of diffusers switched on."""
        return self.name in OURS

    @property
    def degree(self) -> int:
        """What `order` means."""
        return int(self.name in ("taylor", "cg-taylor", "guidance")) if self.order is None else self.order

    def computed(self, num_steps: int) -> frozenset[int]:
        """The steps of N = `num_steps` at which everything is computed; the first always."""
        if self.steps is not None:
            share = 1.0 if self.of is None else (num_steps - 1) / (self.of - 1)
            return frozenset({0, *(round(step * share) for step in self.steps)})
        return frozenset({*range(0, num_steps, self.every), *range(max(0, num_steps - self.last), num_steps)})

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        given = {"name": given} if isinstance(given, str) else given
        if not isinstance(given, dict) or not isinstance(path := given.get("schedule"), str):
            return given
        if others := sorted(given.keys() - {"schedule", "cost", "tolerance"}):
            raise ValueError(f"`schedule` is given with {', '.join(others)}, which it says itself; give one")
        kept = {key: value for key, value in given.items() if key == "tolerance"}
        return read_schedule(at_home(path), given.get("cost")) | kept

    def check_steps(self, num_steps: int) -> None:
        """See that all of `steps` are among N = `num_steps`.

        Raises:
            ValueError: some are not.
        """
        if self.steps is not None and self.of is None and max(self.steps, default=0) >= num_steps:
            raise ValueError(
                f"`cache.steps` has {max(self.steps)}, and the {num_steps} steps of `num_inference_steps` end with "
                f"{num_steps - 1}; remove it, or say with `of` how many steps they are counted in"
            )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        changed = {
            name
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        }
        schedule = changed & {"every", "last", "steps", "of", "order", "tolerance", "modules"}
        if not self.is_ours and schedule:
            raise ValueError(f"`{min(schedule)}` is given, but {self.name!r} is diffusers' own; give it `options`")
        if self.is_ours and self.options:
            raise ValueError(f"`options` are given, but {self.name!r} has none; they are for {', '.join(DIFFUSERS)}")
        if (self.name == "modules") != bool(self.modules):
            raise ValueError("`modules` and `name: modules` go together; give both or neither")
        if self.steps is not None and changed & {"every", "last"}:
            raise ValueError("`steps` is given with `every` or `last`, in whose place it is; give one")
        if self.steps is not None and any(step < 0 for step in self.steps):
            raise ValueError(f"`steps` has {min(self.steps)}; they are numbered from 0")
        if self.of is not None and self.steps is None:
            raise ValueError("`of` is given without `steps`, which are counted in it")
        if self.of is not None and max(self.steps or [0]) >= self.of:
            raise ValueError(f"`steps` has {max(self.steps or [0])}, and `of` = {self.of} steps end with {self.of - 1}")
        if self.cost is not None:
            raise ValueError("`cost` is given without `schedule`, whose entries have one")
        return self


class CopySettings(Settings):
    """A copy of the denoiser, with what is trained merged into it, that runs the steps without a graph; the kept step
    runs on the denoiser itself. It takes the memory of its weights. See docs/cheap-steps.md. A text instead of the
    section is its `dtype`."""

    dtype: Dtype | None = Field(
        None, description="Type of its weights, and of what is computed with them; none: the denoiser's."
    )
    quantize: Quantize | None = Field(
        None,
        description="Weights of the blocks' linear layers and convolutions, but of a UNet's shortcuts and projections, "
        "are rounded to so many bits: less memory, "
        "and no less time. `int8-dynamic`: those of linear layers, and what they are given too, by torchao (the extra "
        "`quantised`); faster on GPUs, with `samplers.compile`.",
    )
    low_rank: int = Field(
        0,
        ge=0,
        description="With `int8` and `int4`: the largest part of this rank of each weight is not rounded (SVDQuant), "
        "and with it what an adapter of such a rank adds.",
    )
    small: str | None = Field(
        None,
        description="A smaller model of the same latents and prompts, as of `model.base`: its denoiser makes the first "
        "steps, up to `until` (T-Stitch).",
    )
    until: float = Field(0.3, gt=0, lt=1, description="With `small`: the share of the steps that it makes.")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {"dtype": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.low_rank and self.quantize not in ("int8", "int4"):
            raise ValueError(
                f"`low_rank` is {self.low_rank} with `quantize: {self.quantize}`; it goes with int8 and int4"
            )
        return self


class CheapStepsSettings(Settings):
    """One way to make the steps without a graph: what `sampling` takes under these names."""

    cache: CacheSettings | None = Field(None, description="None: all steps are computed.")
    fast_copy: CopySettings | None = Field(None, description="None: the denoiser itself runs all steps.")

    @property
    def words(self) -> str:
        """It in a few words: what of it is not the default."""
        parts = []
        for name in ("cache", "fast_copy"):
            if (section := getattr(self, name)) is not None:
                given = section.model_dump(exclude_defaults=True)
                own = [str(given.pop("name"))] if "name" in given else ["copy"]
                parts.append(" ".join([*own, *(f"{key} {value}" for key, value in given.items())]))
        return ", ".join(parts)

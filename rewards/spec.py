"""What a reward is, apart from its scores: what there is to set, whether it has gradients, what it needs."""

import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewards.modality import SHAPES, Modality

ATTRIBUTES: Mapping[str, type] = {
    "differentiable": bool,
    "heldout": bool,
    "batchwise": bool,
    "modality": str,
    "packages": str,
    "licence": str,
    "old_options": dict,
}
"""Class attributes that say what a reward is, and their types; written as literals they can be read without import."""


@dataclass(frozen=True)
class Option:
    """One of a reward's options, a keyword argument of its class."""

    type: Any
    """Its annotation; `Any` if it has none, or one that cannot be told without importing the reward."""

    default: str | None
    """As it is written in Python; None: the option has to be given."""

    @property
    def is_path(self) -> bool:
        """Whether it is annotated as a `Path`: a file, where a relative path starts at the settings file."""
        return Path in (self.type, *typing.get_args(self.type))


@dataclass(frozen=True)
class RewardSpec:
    """What a reward says about itself, in its signature, its docstring and the class attributes `ATTRIBUTES`."""

    path: str
    """Its import path, "package.module:Class"."""

    about: str
    """The first paragraph of the class's docstring."""

    options: Mapping[str, Option]
    """Its options by name, in order."""

    differentiable: bool
    """Whether its scores have a gradient with respect to the samples."""

    heldout: bool = False
    """Whether it is an evaluator, which must never be trained on."""

    batchwise: bool = False
    """Whether a sample's score depends on the others of its batch; learned from is the sum of a batch's scores."""

    modality: Modality = "image"
    """What it judges: "image" [B, 3, H, W], "video" [B, F, 3, H, W], "audio" [B, C, T] or "any" [B, ...]."""

    packages: Path | None = None
    """Requirements file with the packages that it needs beyond this package's own, as `runtime_env: {pip: FILE}` takes
    it. The class attribute is relative to the reward's file."""

    licence: str | None = None
    """SPDX expression, of the code and weights that make the scores; None: it does not say."""

    old_options: Mapping[str, str] = field(default_factory=dict)
    """Names that options had in earlier versions -> their names now."""


def make_spec(
    path: str,
    docstring: str | None,
    options: Mapping[str, Option],
    attributes: Mapping[str, Any],
    packages_from: str | None,
) -> RewardSpec:
    """A spec of what was found about a class.

    Args:
        path: its import path.
        docstring: of the class, or None.
        options: by name.
        attributes: values of those `ATTRIBUTES` that it has.
        packages_from: the file of the class whose attribute `packages` is, None if there is none.

    Raises:
        TypeError: an attribute has another type than it must have; `differentiable` is missing; there is no such
            `modality`.
    """
    for name, value in attributes.items():
        if not isinstance(value, ATTRIBUTES[name]):
            raise TypeError(f"class attribute `{name}` must be {ATTRIBUTES[name].__name__}, got {value!r}")
    if attributes.get("modality", "image") not in SHAPES:
        raise TypeError(
            f"class attribute `modality` must be one of {', '.join(SHAPES)}, got {attributes['modality']!r}"
        )
    given = dict(attributes)
    if packages_from is not None:
        given["packages"] = Path(packages_from).parent / given["packages"]
    about = " ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split())
    return RewardSpec(path=path, about=about, options=options, **given)


def inspect_spec(cls: type) -> RewardSpec:
    """The spec of a class that has been imported.

    Raises:
        TypeError: as `make_spec`.
    """
    attributes = {name: getattr(cls, name) for name in ATTRIBUTES if hasattr(cls, name)}
    # As `inspect.getdoc`, but no docstring of `object`.
    docstring = next((c.__doc__ for c in cls.__mro__[:-1] if c.__doc__), None)
    packages_of = next((c for c in cls.__mro__ if "packages" in vars(c)), None)
    packages_from = None if packages_of is None else inspect.getfile(packages_of)
    return make_spec(f"{cls.__module__}:{cls.__qualname__}", docstring, _options(cls), attributes, packages_from)


def _options(cls: type) -> dict[str, Option]:
    init: Any = cls.__init__  # type: ignore[misc]
    if init is object.__init__:
        return {}
    hints = typing.get_type_hints(init)
    parameters = list(inspect.signature(init).parameters.values())[1:]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        p.name: Option(hints.get(p.name, Any), None if p.default is p.empty else repr(p.default))
        for p in parameters
        if p.kind not in variadic
    }

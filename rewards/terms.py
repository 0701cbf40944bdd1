"""What a reward counts for in the mix, and whether terms can be trained on. Imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rewards.pulls import Normalize
from rewards.spec import RewardSpec


def called(name: str, label: str | None, text: str | None) -> str:
    """What a reward's scores are called: `label` or `name`; with `@text`, so that one can evaluate by several."""
    return (label or name) if text is None else f"{label or name}@{text}"


@dataclass(frozen=True)
class RewardTerm:
    """One reward of the mix."""

    name: str
    """Name or import path of the reward."""

    weight: float
    """w_r. 0: only watched. Negative: less is better."""

    cap: float | None = None
    """c_r, in units of the score: enough is enough, nothing is learned from images above it, or, with a negative
    weight, from images below it. None: no cap."""

    target: float | None = None
    """t_r, in units of the score: neither more nor less is wanted; the score counts as its distance to it, negative.
    None: the more the better."""

    text: str | None = None
    """Which of a row's texts it is given, where rows have several; None: the prompt."""

    label: str | None = None
    """A name of its own, for a reward that is there with several options."""

    weigh_by: str | None = None
    """Column of numbers, >= 0, by which its weight is multiplied, row by row; 0: it does not count for that row. None:
    its weight is that of all rows."""

    shares: tuple[float, ...] | None = None
    """f_r[b], of one batch: what `weigh_by` has for its samples."""

    @property
    def key(self) -> str:
        """What its scores are called, see `called`."""
        return called(self.name, self.label, self.text)

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(
                f"weight of reward {self.name!r} must be a finite number (0: only watch it), got {self.weight}"
            )
        if self.cap is not None and not math.isfinite(self.cap):
            raise ValueError(
                f"cap of reward {self.name!r} must be a finite number, or left out for none, got {self.cap}"
            )
        if self.target is not None and (not math.isfinite(self.target) or self.cap is not None):
            raise ValueError(
                f"target of reward {self.name!r} must be a finite number, and without a cap, got {self.target}"
                + ("" if self.cap is None else f" and cap {self.cap}")
            )


Combine = Literal["sum", "pcgrad", "mgda"]


@dataclass(frozen=True)
class Mixing:
    """How the terms' gradients become one, see `rewards.mix`."""

    normalize: Normalize | None = None
    """What weights are in units of: the size of each reward's gradients, or the deviation of its scores. None: of its
    scores."""

    floor: float = 0.1
    """Share of the largest size that an update has had, below which no size counts as falling."""

    combine: Combine = "sum"
    """What is done where rewards pull against one another, see `rewards.conflicts`."""


def check_mixing(terms: Sequence[RewardTerm], mixing: Mixing) -> None:
    """Check that terms can be combined so.

    Raises:
        ValueError: not two rewards with a weight for `mgda`.
    """
    learned = [term.key for term in terms if term.weight]
    if mixing.combine == "mgda" and len(learned) != 2:
        raise ValueError(
            f"combine: mgda is for two rewards with a weight, got {len(learned)} ({', '.join(learned)}); "
            "choose pcgrad for more"
        )


@dataclass(frozen=True)
class Smoothing:
    """Which copies of an image a reward's gradient is averaged over, see `rewards.smoothing`."""

    shifts: int = 0
    """Pixels by which a copy is moved at most, up or down and left or right; each whole number is equally likely."""

    noise: float = 0.0
    """Standard deviation of what is added to a copy's values, which are in 0 .. 1."""

    copies: int = 4
    """n: images that the mean is over, the image itself among them."""

    def __post_init__(self) -> None:
        if self.shifts < 0 or self.noise < 0 or self.copies < 2 or not (self.shifts or self.noise):
            raise ValueError(
                f"smoothing takes shifts or noise above 0 and at least 2 copies, got shifts {self.shifts}, noise "
                f"{self.noise}, copies {self.copies}; leave it out for a plain gradient"
            )


def check_terms(terms: Sequence[RewardTerm]) -> None:
    """Check that there is something to learn from, and that each reward is named once.

    Raises:
        ValueError: a reward named twice for one text, or none with a weight.
    """
    names = [term.key for term in terms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"each reward can be named once; named more often: {', '.join(twice)}. Give each a label of its own"
        )
    if not any(term.weight for term in terms):
        raise ValueError(
            f"nothing to learn from: no reward has a weight other than 0; given: {', '.join(names) or 'none'}"
        )


def check_weight(term: RewardTerm, spec: RewardSpec) -> None:
    """Check that a reward may have the weight that its term gives it.

    Raises:
        ValueError: a held-out evaluator with a weight other than 0.
    """
    if term.weight and spec.heldout:
        raise ValueError(
            f"reward {term.name!r} is held out for evaluation and has weight {term.weight}: trained on, it would "
            "evaluate nothing. Give it weight 0 to watch it"
        )


def check_gradient(term: RewardTerm, spec: RewardSpec) -> None:
    """Check that a reward can teach where gradients alone do.

    Raises:
        ValueError: a black box with a weight other than 0.
    """
    if term.weight and not spec.differentiable:
        raise ValueError(no_gradient(term))


def no_gradient(term: RewardTerm) -> str:
    """What to say of a term with a weight whose reward has no gradient."""
    return (
        f"reward {term.name!r} has weight {term.weight} but no gradient: it is a black box. Choose a plan by which "
        "those teach, such as group, where there is one (docs/black-box.md), or give it weight 0 to watch it"
    )

"""What a reward counts for in the mix, and whether terms can be trained on. Imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.registry import is_heldout, reward_class


@dataclass(frozen=True)
class RewardTerm:
    """One reward of the mix."""

    name: str
    """Name or import path of the reward."""

    weight: float
    """w_r. 0: only watched. Negative: less is better."""

    cap: float | None = None
    """c_r, in units of the score: enough is enough, nothing is learned from images above it. None: no cap."""

    text: str | None = None
    """Which of a row's texts it is given, where rows have several; None: the prompt."""

    @property
    def key(self) -> str:
        """What its scores are called: `name`, or `name@text`, so that one reward can evaluate by several texts."""
        return self.name if self.text is None else f"{self.name}@{self.text}"

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(
                f"weight of reward {self.name!r} must be a finite number (0: only watch it), got {self.weight}"
            )
        if self.cap is not None and not math.isfinite(self.cap):
            raise ValueError(
                f"cap of reward {self.name!r} must be a finite number, or left out for none, got {self.cap}"
            )


def check_terms(terms: Sequence[RewardTerm]) -> None:
    """Check that these rewards can be trained on, before anything starts. Loads no weights.

    Raises:
        ValueError: a reward named twice for one text, none with a weight, a held-out evaluator or a black-box reward
            with one.
        RewardError: a reward that does not exist.
    """
    names = [term.key for term in terms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each reward can be named once; named more often: {', '.join(twice)}")
    learned = [term for term in terms if term.weight != 0]
    if not learned:
        raise ValueError(
            f"nothing to learn from: no reward has a weight other than 0; given: {', '.join(names) or 'none'}"
        )
    for term in learned:
        if is_heldout(term.name):
            raise ValueError(
                f"reward {term.name!r} is held out for evaluation and has weight {term.weight}: trained on, it would "
                "evaluate nothing. Give it weight 0 to watch it"
            )
        if not reward_class(term.name).differentiable:  # type: ignore[attr-defined]
            raise ValueError(no_gradient(term))


def no_gradient(term: RewardTerm) -> str:
    """What to say of a term with a weight whose reward has no gradient."""
    return (
        f"reward {term.name!r} has weight {term.weight} but no gradient: it is a black box. Give it weight 0 to watch "
        "it, and train on a differentiable one"
    )

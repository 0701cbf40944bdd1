"""What watches updates, and what it may decide about the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sdo_ray.training.records import UpdateReport


@dataclass(frozen=True)
class Continue:
    """Go on."""


@dataclass(frozen=True)
class Stop:
    """Train no further: the policy at the next update boundary is what the run hands out."""

    reason: str
    """In words, for the outcome."""


@dataclass(frozen=True)
class RollBack:
    """Train no further, and hand out an earlier policy."""

    version: int
    """Updates in it. Of the checkpoints kept, the newest with at most so many is taken; see `checkpoints`."""
    reason: str
    """In words, for the outcome."""


@dataclass(frozen=True)
class Abort:
    """End the run as failed; the same command resumes it from its newest checkpoint."""

    cause: str
    """In words, for whoever mends it."""


Decision = Continue | Stop | RollBack | Abort
_WEIGHT = (Continue, Stop, RollBack, Abort)


class Observer(Protocol):
    """Sees every update once, in order, on the driver."""

    def observe(self, report: UpdateReport) -> Decision:
        """Look at an update that was just made; `Continue()` from those that only watch."""
        ...


def decide(observers: Sequence[Observer], report: UpdateReport) -> Decision:
    """Show every observer the update; of what they decide, abort before roll back before stop before go on.

    Among equals, the first observer's counts.
    """
    decisions = [observer.observe(report) for observer in observers]
    return max(decisions, key=lambda decision: _WEIGHT.index(type(decision)), default=Continue())

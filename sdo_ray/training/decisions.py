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


class Decider:
    """Shows updates to observers, and says once what ends training.

    Trainers make some more updates until they hear of it. Those are shown too, but what is decided stays: a run that is
    to stop does not fail by what comes after.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._has_ended = False

    def decide(self, report: UpdateReport) -> Decision:
        """Of what the observers decide of an update: abort before roll back before stop before go on.

        Among equals, the first observer's counts. After anything but `Continue()`, it is that.
        """
        decisions = [observer.observe(report) for observer in self._observers]
        if self._has_ended:
            return Continue()
        decided = max(decisions, key=lambda decision: _WEIGHT.index(type(decision)), default=Continue())
        self._has_ended = decided != Continue()
        return decided

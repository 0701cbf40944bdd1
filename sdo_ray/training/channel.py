"""Between the driver and the trainers: reports of updates one way, the end of training the other.

trainer rank 0 -- report(UpdateReport) --> ChannelActor <-- next_report(after) ------- driver
trainers       -- preview(update, png) -->
               -- give_up(why) ---------->              <-- failure() ---------------
               <-- ending, for a report --              <-- end(decision, version) --
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray

from sdo_ray.sealed import Sealed
from sdo_ray.training.decisions import RollBack, Stop

if TYPE_CHECKING:
    from sdo_ray.training.records import UpdateReport


class ChannelActor:
    """An asynchronous Ray actor. `Channel` is its client."""

    def __init__(self) -> None:
        self._reports: dict[int, tuple[Sealed[UpdateReport], bytes | None]] = {}
        self._previews: dict[int, bytes] = {}
        self._ending: tuple[Stop | RollBack, int] | None = None
        self._failure: str | None = None
        self._changed = asyncio.Condition()

    async def preview(self, update: int, png: bytes) -> None:
        """Keep the preview of an update for its report."""
        self._previews[update] = png

    async def report(self, update: int, report: Sealed[UpdateReport]) -> Stop | RollBack | None:
        """File the report of an update, in place of one that trainers who died had filed; returns how training ends."""
        async with self._changed:
            self._reports[update] = report, self._previews.pop(update, None)
            self._changed.notify_all()
        decision, version = self._ending or (None, 0)
        return decision if update + 1 >= version else None

    async def next_report(self, after: int, seconds: float) -> tuple[Sealed[UpdateReport], bytes | None] | None:
        """The first after `after` and its preview, waiting at most `seconds`; those up to `after` are let go."""

        def has_later() -> bool:
            # Also while it waits: trainers that start again make, and file, updates anew.
            self._reports = {update: report for update, report in self._reports.items() if update > after}
            return bool(self._reports)

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(has_later), seconds)
            except TimeoutError:
                return None
            return self._reports[min(self._reports)]

    async def end(self, decision: Stop | RollBack, version: int) -> None:
        """Have the trainers end once they have made `version`; the first decision stays."""
        self._ending = self._ending or (decision, version)

    async def give_up(self, why: str) -> None:
        """Have the driver end the run, because trying again would fail again."""
        self._failure = self._failure or why

    async def failure(self) -> str | None:
        """Why the run was given up, or None."""
        return self._failure


@dataclass(frozen=True)
class Channel:
    """Driver and trainers call the actor through this; it may travel between processes."""

    actor: Any
    """Handle of the `ChannelActor`."""

    @classmethod
    def start(cls) -> Channel:
        """On the driver's node; its death ends the run, which the same command then resumes."""
        return cls(ray.remote(ChannelActor).options(num_cpus=0, max_concurrency=1000).remote())

    def preview(self, update: int, png: bytes) -> None:
        """File the preview of an update, by whichever worker has it, before its report."""
        ray.get(self.actor.preview.remote(update, png))

    def report(self, report: UpdateReport) -> Stop | RollBack | None:
        """File the report of an update; returns how training ends now, if the driver has decided that it does."""
        ending: Stop | RollBack | None = ray.get(self.actor.report.remote(report.update, Sealed.of(report)))
        return ending

    def next_report(self, after: int, seconds: float) -> UpdateReport | None:
        """The report of the first update after `after`, waiting at most `seconds` for it."""
        if (found := ray.get(self.actor.next_report.remote(after, seconds))) is None:
            return None
        sealed, preview = found
        return replace(sealed.open(), preview=preview)

    def end(self, decision: Stop | RollBack, version: int) -> None:
        """Have the trainers end at the next update boundary at which they have made `version`.

        They do not wait for it, so they may be some updates further. The first decision stays, also for trainers that
        start again from a checkpoint.
        """
        ray.get(self.actor.end.remote(decision, version))

    def give_up(self, why: str) -> None:
        """Have the driver end the run, because trying again would fail again."""
        ray.get(self.actor.give_up.remote(why))

    def failure(self) -> str | None:
        """Why the run was given up, or None."""
        failure: str | None = ray.get(self.actor.failure.remote())
        return failure

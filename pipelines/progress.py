"""What a person sees while an alignment run goes on: one line an update."""

from __future__ import annotations

import statistics
import time

from pipelines.bar import Move
from sdo_ray.driver.state import StateFile
from sdo_ray.training.decisions import Continue, Decision
from sdo_ray.training.group_watch import in_words
from sdo_ray.training.records import Spread, UpdateReport


class Progress:
    """Turns reports into lines with the reward so far and the time left.

    Args:
        updates: of the whole run.
        move: is told how many are made.
    """

    def __init__(self, updates: int, move: Move = lambda _: None) -> None:
        self._updates, self._move = updates, move
        self._seconds: list[float] = []
        self._first: float | None = None
        self._last = time.monotonic()

    def observe(self, report: UpdateReport) -> Decision:
        """Print a line; see `Observer`."""
        print(self.line(report), flush=True)
        self._move(report.update + 1)
        return Continue()

    def line(self, report: UpdateReport) -> str:
        """One update in words and numbers."""
        now = time.monotonic()
        self._seconds.append(now - self._last)
        self._last = now
        if self._first is None:
            self._first = report.reward.mean
        # The first update also waits for everything to start, and says nothing of the others.
        typical = statistics.median(self._seconds[1:]) if len(self._seconds) > 1 else None
        done = report.update + 1
        scores = "  ".join(f"{name} {_number(spread)}" for name, spread in report.scores.items())
        skipped = f"  {report.num_skipped} SKIPPED" if report.num_skipped else ""
        groups = f"  {said}" if (said := in_words(report.groups)) else ""
        split = f"  {report.num_splits} SPLIT, for memory" if report.num_splits else ""
        since = f" (from {self._first:.2f})" if self._first is not None else ""
        left = "?" if typical is None else clock(typical * (self._updates - done))
        return (
            f"update {done:>{len(str(self._updates))}}/{self._updates}  "
            f"reward {_number(report.reward)}{since}  {scores}  "
            f"lag {report.policy_lag:.0f}  {self._seconds[-1]:.1f} s  left {left}{groups}{skipped}{split}"
        )


class StateLog:
    """An `Observer` that says how far the run is to whoever asks by `sdo status`.

    Args:
        updates: of the whole run.
        state: of the run.
    """

    def __init__(self, updates: int, state: StateFile) -> None:
        self._updates, self._state = updates, state

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        reward = report.reward.mean
        self._state.write(report.update + 1, self._updates, "updates", **({} if reward is None else {"reward": reward}))
        return Continue()


def _number(spread: Spread) -> str:
    return "none" if spread.mean is None else f"{spread.mean:.3g}"


def clock(seconds: float) -> str:
    """Seconds as minutes or hours, such as 4:05 or 1:00:00."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

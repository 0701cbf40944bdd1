"""What a person sees while nothing happens: what is waited for, and what died."""

from __future__ import annotations

import threading
import time
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import ray

from sdo_ray.training.decisions import Continue, Decision
from sdo_ray.training.records import UpdateReport

SILENCE = 30.0
"""Seconds without an update until it speaks; then each time twice as long, up to `LONGEST`."""
LONGEST = 300.0
EVERY = 2.0
"""Seconds between looks."""
SHOWN = 4
"""Things that are waited for, in a line."""

Look = tuple[Mapping[str, float], Sequence[str]]
"""What is waited for -> since how many seconds; and what happened, a line each."""


class Heartbeat:
    """An `Observer` that prints what is waited for when there was no update for a while, as long as the block lasts.

    Args:
        look: asks those who know.
    """

    def __init__(self, look: Callable[[], Look]) -> None:
        self._look = look
        self._ended = threading.Event()
        self._heard = time.monotonic()
        self._speaks_after = SILENCE

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        self._heard, self._speaks_after = time.monotonic(), SILENCE
        return Continue()

    def beat(self) -> list[str]:
        """What there is to say now."""
        waiting, news = self._look()
        lines, silent = list(news), time.monotonic() - self._heard
        if silent >= self._speaks_after:
            self._speaks_after += min(self._speaks_after, LONGEST)
            lines.append(f"waiting since {silent:.0f} s{_listed(waiting)}")
        return lines

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            try:
                lines = self.beat()
            except ray.exceptions.RayError:  # whoever knows is starting again, or all ends
                continue
            for line in lines:
                print(line, flush=True)


def look_at(actors: Sequence[Any]) -> Callable[[], Look]:
    """Asks actors with `waiting` and `news`."""

    def look() -> Look:
        waiting = ray.get([actor.waiting.remote() for actor in actors], timeout=10.0)
        news = ray.get([actor.news.remote() for actor in actors], timeout=10.0)
        return dict(ChainMap(*waiting)), [line for part in news for line in part]

    return look


def _listed(waiting: Mapping[str, float]) -> str:
    longest = sorted(waiting.items(), key=lambda item: -item[1])
    parts = [f"{what} ({since:.0f} s)" for what, since in longest[:SHOWN]]
    more = [f"{len(longest) - SHOWN} more"] if len(longest) > SHOWN else []
    return f": {'; '.join([*parts, *more])}" if parts else " for the trainers, and for samplers to start"

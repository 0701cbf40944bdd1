"""Who samples what, so that the driver can say what it waits for, and nothing dies at the same batch for ever.

Sampler -- starts, begins, ends --> WatchActor <-- waiting, news -- driver
        <-- deaths at it so far --
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from sdo_ray.rollout.replica import named

if TYPE_CHECKING:
    from sdo_ray.rollout.records import PromptBatch

DEATHS = 3
"""Samplers that one batch may take along, or that may die one after the other as they start."""

START = "its start"
"""In place of a batch's first row."""


class BatchFailed(RuntimeError):
    """A batch that cannot be had and must not be skipped; the message is one line with the batch and the cause."""


class WatchActor:
    """A Ray actor. `Watch` is its client."""

    def __init__(self) -> None:
        self._news: list[str] = []
        self.reset()

    def reset(self) -> None:
        """A new stream with new samplers: what the former were at counts no more."""
        self._numbers: dict[str, int] = {}
        self._work: dict[tuple[str, int | str], tuple[str, float]] = {}
        self._deaths: Counter[int | str] = Counter()
        self._said: set[str] = set()

    def say(self, line: str) -> None:
        """Something that people should know; the same line again is left out."""
        if line not in self._said:
            self._said.add(line)
            self._news.append(line)

    def begin(self, sampler: str, at: int | str, what: str) -> int:
        """A sampler begins a batch, known by its first row, or its own start; returns the deaths at it before."""
        self._numbers.setdefault(sampler, len(self._numbers) + 1)
        # A sampler that starts is at nothing else any more; and a batch is begun again where its sampler is gone.
        lost = [(who, where) for who, where in self._work if where == at != START or (who == sampler and at == START)]
        for who, where in lost:
            self._deaths[where] += 1
            doing, _ = self._work.pop((who, where))
            self._news.append(
                f"sampler {self._numbers[who]} died at {doing}; death {self._deaths[where]} of {DEATHS} there"
            )
        self._work[sampler, at] = what, time.monotonic()
        return self._deaths[at]

    def end(self, sampler: str, at: int | str) -> None:
        """It has come to the end of that."""
        self._work.pop((sampler, at), None)
        self._deaths.pop(at, None)

    def waiting(self) -> dict[str, float]:
        """What is waited for here, in words -> since how many seconds."""
        now = time.monotonic()
        return {
            f"sampler {self._numbers[who]} at {what}": now - since for (who, _), (what, since) in self._work.items()
        }

    def news(self) -> list[str]:
        """What was said since this was called last, which samplers died too."""
        news, self._news = self._news, []
        return news


@dataclass(frozen=True)
class Watch:
    """Samplers report through this; it may travel between processes."""

    actor: Any
    """Handle of the `WatchActor`."""

    @classmethod
    def start(cls) -> Watch:
        """A watch; if it dies, it starts anew and has forgotten all."""
        return cls(ray.remote(WatchActor).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote())

    def say(self, line: str) -> None:
        """Something that people should know."""
        self.actor.say.remote(line)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around a sampler's start.

        Raises:
            BatchFailed: too many have died at theirs.
        """
        with self._at(START, START):
            yield

    @contextmanager
    def batch(self, batch: PromptBatch) -> Iterator[None]:
        """Around a sampler's work on a batch.

        Raises:
            BatchFailed: too many have died at this batch.
        """
        with self._at(batch.rows[0], f"{batch} ({named(batch.prompts)})"):
            yield

    @contextmanager
    def _at(self, at: int | str, what: str) -> Iterator[None]:
        sampler = ray.get_runtime_context().get_actor_id()
        died = ray.get(self.actor.begin.remote(sampler, at, what))
        try:
            if died >= DEATHS:
                raise BatchFailed(f"samplers died {died} times at {what}; Ray's logs may say why, memory is likely")
            yield
        finally:
            self.actor.end.remote(sampler, at)

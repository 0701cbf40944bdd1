"""Who samples what, so that the driver can say what it waits for, and nothing dies at the same batch for ever.

Sampler -- starts, begins, ends, is there --> WatchActor <-- waiting, news -- driver
        <-- deaths at it so far ----------               <-- lost ---------- trainers
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from sdo_ray.rollout.replica import named

if TYPE_CHECKING:
    from sdo_ray.rollout.records import PromptBatch

DEATHS = 3
"""Samplers that one batch may take along, or that may die one after the other as they start."""

TOUCH_EVERY = 10.0
"""Seconds between two signs of life of a sampler."""

START = "its start"
"""In place of a batch's first row."""


class BatchFailed(RuntimeError):
    """A batch that cannot be had and must not be skipped; the message is one line with the batch and the cause."""


class Disagreement(RuntimeError):
    """Copies of one thing are not the same; the message is one line with both."""


class WatchActor:
    """A Ray actor. `Watch` is its client.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._news: list[str] = []
        self._clock = clock
        self._num_lost = 0
        """Over all streams: how often work was taken from samplers that were lost."""
        self.reset()

    def reset(self) -> None:
        """A new stream with new samplers: what the former were at counts no more."""
        self._numbers: dict[str, int] = {}
        self._work: dict[tuple[str, int | str], tuple[str, float]] = {}
        self._deaths: Counter[int | str] = Counter()
        self._said: set[str] = set()
        self._heard: dict[str, float] = {}
        self._is_taken = False
        self._marks: dict[str, tuple[str, str]] = {}

    def say(self, line: str) -> None:
        """Something that people should know; the same line again is left out."""
        if line not in self._said:
            self._said.add(line)
            self._news.append(line)

    def begin(self, sampler: str, at: int | str, what: str) -> int:
        """A sampler begins a batch, known by its first row, or its own start; returns the deaths at it before."""
        self._numbers.setdefault(sampler, len(self._numbers) + 1)
        self.touch(sampler)
        # A sampler that starts is at nothing else any more; and a batch is begun again where its sampler is gone.
        lost = [(who, where) for who, where in self._work if where == at != START or (who == sampler and at == START)]
        for who, where in lost:
            self._deaths[where] += 1
            doing, _ = self._work.pop((who, where))
            self._news.append(
                f"sampler {self._numbers[who]} died at {doing}; death {self._deaths[where]} of {DEATHS} there"
            )
        self._work[sampler, at] = what, self._clock()
        return self._deaths[at]

    def touch(self, sampler: str) -> None:
        """A sampler is there."""
        self._heard[sampler] = self._clock()

    def lost(self, after: float) -> list[str]:
        """What samplers have in hand that were not heard of for `after` seconds, in words; said, and counted."""
        now, lost = self._clock(), list[str]()
        for (who, at), (what, _) in self._work.items():
            silent = now - self._heard[who]
            if at != START and silent >= after:
                lost.append(f"sampler {self._numbers[who]} at {what}, not heard of for {silent:.0f} s")
        if lost and not self._is_taken:  # each trainer asks
            self._is_taken, self._num_lost = True, self._num_lost + 1
            others = "others are given its work, from the newest checkpoint on"
            self._news.append(f"{'; '.join(lost)}: {others} (loss {self._num_lost} of this run)")
        return lost

    def end(self, sampler: str, at: int | str) -> None:
        """It has come to the end of that."""
        self._work.pop((sampler, at), None)
        self._deaths.pop(at, None)

    def agree(self, what: str, who: str, mark: str) -> tuple[str, str]:
        """What was first said of `what`: who, and the mark. All are to say the same."""
        return self._marks.setdefault(what, (who, mark))

    def waiting(self) -> dict[str, float]:
        """What is waited for here, in words -> since how many seconds."""
        now = self._clock()
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

    def stay_in_touch(self) -> None:
        """From now on, let it be known that the sampler that calls this is there."""
        sampler = ray.get_runtime_context().get_actor_id()

        def touch() -> None:
            while True:
                time.sleep(TOUCH_EVERY)
                with contextlib.suppress(ray.exceptions.RayError):
                    self.actor.touch.remote(sampler)

        threading.Thread(target=touch, name="sign of life", daemon=True).start()

    def agree(self, what: str, who: str, mark: str) -> None:
        """Compare what copies of one thing should have in common.

        Args:
            what: the thing, such as the base model's weights.
            who: has this copy; its node is added.
            mark: of it.

        Raises:
            Disagreement: the first who said something of it has another.
        """
        who = f"{who} on {ray.util.get_node_ip_address()}"
        first, expected = ray.get(self.actor.agree.remote(what, who, mark))
        if mark != expected:
            raise Disagreement(f"{what} of {who} have the fingerprint {mark}, and those of {first} {expected}")

    def lost(self, after: float) -> list[str]:
        """What samplers have in hand that were not heard of for so many seconds."""
        lost: list[str] = ray.get(self.actor.lost.remote(after))
        return lost

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

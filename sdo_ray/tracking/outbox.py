"""What is on its way to a server that may be away: sent in order, by a thread, until it has arrived."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from sdo_ray.secrets import redact

T = TypeVar("T")

PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds until what failed is tried again: at first, and at most, as they double."""


class NotSent(RuntimeError):
    """The server did not take everything in time; the message says why."""


class Outbox(Generic[T]):
    """Sends things, one after the other, while whoever made them goes on.

    Args:
        to: the server, in words.
        send: takes one thing; what it raises is said once an outage, and it is called with the same thing again.
    """

    def __init__(self, to: str, send: Callable[[T], None]) -> None:
        self._to, self._send = to, send
        self._waiting: deque[T] = deque()
        self._changed, self._ended = threading.Condition(), threading.Event()
        self._why: str | None = None
        threading.Thread(target=self._work, name=f"to {to}", daemon=True).start()

    def put(self, thing: T) -> None:
        """Send it after those before it; returns at once."""
        with self._changed:
            self._waiting.append(thing)
            self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until everything has arrived.

        Raises:
            NotSent: something has not, after so many seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._waiting, seconds):
                why = f": {self._why}" if self._why else ""
                raise NotSent(f"{self._to} did not take {len(self._waiting)} updates within {seconds:.0f} s{why}")

    def close(self) -> None:
        """Send nothing more."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()

    def _work(self) -> None:
        pause = PAUSE
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended.is_set())
                if self._ended.is_set():
                    return
                thing = self._waiting[0]
            try:
                self._send(thing)
            except Exception as error:  # whatever a client raises, the thing is not there
                self._say_failed(error)
                self._ended.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = PAUSE
            with self._changed:
                self._waiting.popleft()
                if self._why is not None:
                    print(f"{self._to} takes updates again; {len(self._waiting)} are on their way", flush=True)
                    self._why = None
                self._changed.notify_all()

    def _say_failed(self, error: Exception) -> None:
        why = redact(" ".join(str(error).split()))[:300] or type(error).__name__
        if self._why is None:
            print(f"{self._to} takes no updates: {why}; the run goes on, they are kept and sent again", flush=True)
        self._why = why

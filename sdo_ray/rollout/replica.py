"""One replica of a reward, what it is given, and what it may take. No Ray in here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

WINDOW = 600.0
"""Seconds in which a replica may be restarted `max_restarts` times."""

SHOWN = 3
"""Prompts that a message names."""


class RewardFailed(RuntimeError):
    """A reward that gives no answer, whatever was tried.

    Attributes:
        reward: its key.
        why: what happened, in words.
        prompts: of the batch that it happened at; empty if it was at none.
    """

    def __init__(self, reward: str, why: str, prompts: Sequence[str] = ()) -> None:
        super().__init__(reward, why, tuple(prompts))
        self.reward, self.why, self.prompts = reward, why, tuple(prompts)

    @property
    def line(self) -> str:
        """The message; that of the error which Ray makes of this one has a traceback around it."""
        at = f", at the prompts {named(self.prompts)}" if self.prompts else ""
        return f"reward {self.reward!r} {self.why}{at}"

    def __str__(self) -> str:
        return self.line


class ReplicaLost(Exception):
    """A replica died or hangs; the message says which, as what it did."""


class ReplicaHangs(ReplicaLost):
    """It took too long."""


class Replica(Protocol):
    """One process that scores."""

    async def ready(self) -> bool:
        """Wait until it can score; returns whether it may be given several batches as one.

        Raises:
            ReplicaLost: it died.
            Exception: what the reward raised.
        """
        ...

    async def score(self, calls: Sequence[Call]) -> Sequence[Any]:
        """An answer for each call; raises as `ready` does."""
        ...

    def kill(self) -> None:
        """End it, whatever it does."""
        ...


@dataclass(eq=False)
class Call:
    """One batch to score."""

    images: Any
    """Reference to float16 or float32 [B, C, H, W]."""
    shape: tuple[int, ...]
    """Of the images."""
    texts: Mapping[str, list[str]]
    """Of each reward that is asked, by its key: what it is given."""
    want_gradient: Mapping[str, bool]
    """Of each of these."""
    seeds: list[int]
    """A seed of each image for what the reward draws; may be empty."""
    answer: asyncio.Future[Any] = field(init=False)
    since: float = field(init=False)
    """When it was asked or, once it is being scored, since when it is."""
    deaths: int = 0
    alone: bool = False
    """Whether it must not be merged with others."""

    @property
    def prompts(self) -> list[str]:
        """For messages: what the first of them is given."""
        return next(iter(self.texts.values()))

    def __post_init__(self) -> None:
        self.answer = asyncio.get_running_loop().create_future()
        self.since = time.monotonic()


@dataclass(frozen=True)
class Limits:
    """How much a reward may take."""

    count: int
    """Replicas."""
    batch_size: int | None
    """Images up to which waiting calls are merged; None: every call by itself."""
    timeout: float
    """Seconds for a call, from when a replica takes it."""
    start_timeout: float
    """Seconds for a start."""
    max_restarts: int
    """Restarts of each replica within `WINDOW`, or without an answer."""


def named(prompts: Sequence[str]) -> str:
    """Prompts for a message: the first ones."""
    more = f" and {len(prompts) - SHOWN} more" if len(prompts) > SHOWN else ""
    return ", ".join(map(repr, prompts[:SHOWN])) + more

"""The replicas of one reward: which scores what, and what becomes of those that die, hang or raise. No Ray in here.

calls -- one queue --> whichever replica is free --> answers
                         | dies, or takes too long: a new one in its place, the call goes to the next that is free
                         | at the same call again and again, or too often: `RewardFailed`

A call that was met by a death is not merged with others any more, so that the blame falls on the right one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sdo_ray.rollout.replica import WINDOW, Call, Limits, Replica, ReplicaHangs, ReplicaLost, RewardFailed, named

T = TypeVar("T")

TRIES = 3
"""How often a call is made that ends in a death, or in none within the timeout."""


FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds; each is twice as long as the one before. One that was lost by itself is replaced at once."""


class Replicas:
    """Keeps as many replicas of a reward as there shall be, and gives each the next call once it is free.

    To be used within one event loop.

    Args:
        reward: its key.
        start: makes a replica, without waiting for it.
        limits: see there.
    """

    def __init__(self, reward: str, start: Callable[[], Replica], limits: Limits) -> None:
        self._reward = reward
        self._start = start
        self._limits = limits
        self._queue: deque[Call] = deque()
        self._filled = asyncio.Condition()
        self._busy: list[Call] = []
        self._starting: dict[int, float] = {}
        self._restarts: deque[float] = deque()
        self._failed: asyncio.Future[RewardFailed] = asyncio.get_running_loop().create_future()
        self._ready = [asyncio.Event() for _ in range(limits.count)]
        self._mergeable = False
        self.news: list[str] = []
        """What was restarted, and why, a line each, since somebody emptied it."""
        self.seconds: list[float] = []
        """That calls took, from when a replica took them, since somebody emptied it."""
        self.restarts = 0
        """Of all replicas so far."""
        self._tasks = [asyncio.create_task(self._keep(number)) for number in range(limits.count)]

    async def ready(self) -> None:
        """Wait until all have started.

        Raises:
            RewardFailed: they do not.
        """

        async def all_ready() -> None:
            for event in self._ready:
                await event.wait()

        await self._unless_failed(all_ready())

    async def score(self, call: Call) -> Any:
        """The answer to a call.

        Raises:
            RewardFailed: there is none, after all that could be tried.
            Exception: what the reward raised.
        """
        if self._failed.done():
            raise self._failed.result()
        await self._put(call, first=False)
        return await self._unless_failed(call.answer)

    def waiting(self) -> dict[str, float]:
        """What is waited for here, in words -> since how many seconds."""
        now = time.monotonic()
        found = {f"reward {self._reward} to start": now - since for since in self._starting.values()}
        return found | {
            f"reward {self._reward} to score {len(call.prompts)} images ({named(call.prompts)})": now - call.since
            for call in self._busy
        }

    async def _keep(self, number: int) -> None:
        """One replica after the other, in the same place."""
        lost = 0  # since one answered
        while not self._failed.done():
            replica: Replica | None = None
            self._starting[number] = time.monotonic()
            try:
                await asyncio.sleep(pause(lost))
                replica = self._start()
                self._mergeable = await _within(self._limits.start_timeout, replica.ready(), "did not start")
                del self._starting[number]
                self._ready[number].set()
                while True:
                    await self._serve(replica)
                    lost = 0
            except Exception as error:
                lost += 1
                died = isinstance(error, ReplicaLost)
                cause = str(error) if died else f"could not start: {error}"
                if self._ready[number].is_set() or (died and not isinstance(error, ReplicaHangs)):
                    self._count_restart(cause, lost)
                else:  # it has never started, and would not the next time
                    self._fail(cause)
            finally:
                self._starting.pop(number, None)
                if replica is not None:
                    replica.kill()

    async def _serve(self, replica: Replica) -> None:
        calls = await self._take()
        self._busy += calls
        began = time.monotonic()
        try:
            answers = await _within(self._limits.timeout, replica.score(calls), "did not answer")
        except ReplicaLost as lost:
            for call in calls:
                call.deaths += 1
                if call.deaths < TRIES:
                    await self._put(call, first=True)
                else:
                    cause = f"{lost}, {TRIES} times at the same batch"
                    _settle(call, RewardFailed(self._reward, cause, call.prompts))
            raise
        except Exception as error:
            for call in calls:
                if len(calls) > 1:
                    await self._put(call, first=True)
                else:
                    _settle(call, error)
        else:
            self.seconds.append(time.monotonic() - began)
            for call, answer in zip(calls, answers, strict=True):
                _settle(call, answer)
        finally:
            self._busy = [call for call in self._busy if call not in calls]

    async def _take(self) -> list[Call]:
        """The next call, and those behind it that are scored together with it."""
        async with self._filled:
            await self._filled.wait_for(lambda: self._queue)
            calls = [self._queue.popleft()]
            while self._queue and self._fits(calls, self._queue[0]):
                calls.append(self._queue.popleft())
        for call in calls:
            call.since = time.monotonic()
        return calls

    def _fits(self, calls: Sequence[Call], other: Call) -> bool:
        first, limit = calls[0], self._limits.batch_size
        return (
            limit is not None
            and self._mergeable
            and not (first.alone or other.alone)
            and (first.shape[1:], first.want_gradient) == (other.shape[1:], other.want_gradient)
            and sum(call.shape[0] for call in calls) + other.shape[0] <= limit
        )

    async def _put(self, call: Call, first: bool) -> None:
        """Into the queue, or, if it has been taken once, to its beginning and not to be merged again."""
        async with self._filled:
            call.alone |= first
            (self._queue.appendleft if first else self._queue.append)(call)
            self._filled.notify()

    def _count_restart(self, cause: str, lost: int) -> None:
        """Or give up; pauses keep those in a row in one place apart, so that few of them are within the window."""
        now, allowed = time.monotonic(), self._limits.max_restarts * self._limits.count
        self._restarts = deque(then for then in [*self._restarts, now] if now - then < WINDOW)
        restarts, within = f"{allowed} restart{'s' * (allowed != 1)}", f"within {WINDOW / 60:.0f} minutes"
        if len(self._restarts) > allowed:
            self._fail(f"{cause}; {restarts} {within} did not help")
        elif lost > allowed:
            self._fail(f"{cause}; {restarts} in a row did not help")
        else:
            self.restarts += 1
            count = f"restart {len(self._restarts)} of {allowed} {within}"
            self.news.append(f"reward {self._reward!r} {cause}; {count}")

    def _fail(self, cause: str) -> None:
        if not self._failed.done():
            self._failed.set_result(RewardFailed(self._reward, cause))
            for task in self._tasks:
                if task is not asyncio.current_task():
                    task.cancel()

    async def _unless_failed(self, wanted: Awaitable[T]) -> T:
        task: asyncio.Future[T] = asyncio.ensure_future(wanted)
        either: list[asyncio.Future[Any]] = [task, self._failed]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise self._failed.result()
        return await task


def pause(lost: int) -> float:
    """Seconds before a replica is started, after so many in its place were lost in a row."""
    return 0.0 if lost < 2 else min(FIRST_PAUSE * 2 ** (lost - 2), LONGEST_PAUSE)


async def _within(seconds: float, wanted: Awaitable[T], did_not: str) -> T:
    try:
        return await asyncio.wait_for(wanted, seconds)
    except TimeoutError:
        raise ReplicaHangs(f"{did_not} within {seconds:g} seconds") from None


def _settle(call: Call, outcome: Any) -> None:
    if call.answer.done():  # nobody waits for it any more
        return
    if isinstance(outcome, Exception):
        call.answer.set_exception(outcome)
    else:
        call.answer.set_result(outcome)

"""Who scores what, and what becomes of replicas that die, hang or raise; the replicas here are of this process."""

import asyncio
import pickle
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from sdo_ray.rollout import replicas
from sdo_ray.rollout.replica import Call, Limits, ReplicaLost, RewardFailed
from sdo_ray.rollout.replicas import TRIES, Replicas


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "FIRST_PAUSE", 0.05)


LIMITS = Limits(count=1, batch_size=None, timeout=0.3, start_timeout=0.3, max_restarts=3)
POISON = "poison"


class Scorer:
    """Answers with the names of the calls that it was given together. Prompts say what else it does."""

    def __init__(self, log: list[list[str]], mergeable: bool = True) -> None:
        self.log, self.mergeable, self.dead = log, mergeable, False

    async def ready(self) -> bool:
        await asyncio.sleep(0)
        return self.mergeable

    async def score(self, calls: Sequence[Call]) -> Sequence[Any]:
        names = [call.prompts[0] for call in calls]
        self.log.append(names)
        await asyncio.sleep(0.01)
        if POISON in names:
            raise ReplicaLost("died while it scored")
        if "hangs" in names:
            await asyncio.sleep(60)
        if "bad" in names:
            raise ValueError("cannot score this")
        return [f"{name} of {len(names)}" for name in names]

    def kill(self) -> None:
        self.dead = True


class DiesAtStart(Scorer):
    async def ready(self) -> bool:
        raise ReplicaLost("died at its start")


class HangsAtStart(Scorer):
    async def ready(self) -> bool:
        await asyncio.sleep(60)
        return True


class RaisesAtStart(Scorer):
    async def ready(self) -> bool:
        raise ValueError("no weights here")


def call(name: str, size: int = 2, want_gradient: bool = True) -> Call:
    return Call(None, (size, 3, 8, 8), {"r": [name] * size}, {"r": want_gradient}, [])


class Pool:
    """Replicas of one reward, and all that was started."""

    def __init__(self, kind: type[Scorer] = Scorer, limits: Limits = LIMITS, mergeable: bool = True) -> None:
        self.log: list[list[str]] = []
        self.made: list[Scorer] = []

        def start() -> Scorer:
            self.made.append(kind(self.log, mergeable))
            return self.made[-1]

        self.replicas = Replicas("ink", start, limits)

    async def outcome(self, *calls: Call) -> list[Any]:
        return await asyncio.gather(*map(self.replicas.score, calls), return_exceptions=True)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def test_whichever_is_free_takes_the_next_call() -> None:
    async def work() -> None:
        pool = Pool(limits=replace(LIMITS, count=2, timeout=5.0))
        await pool.replicas.ready()
        began = time.monotonic()
        assert await pool.outcome(*(call(str(i)) for i in range(40))) == [f"{i} of 1" for i in range(40)]
        assert len(pool.made) == 2
        assert 40 * 0.01 / 2 < time.monotonic() - began < 40 * 0.01

    run(work)


def test_calls_that_wait_are_merged_where_they_may() -> None:
    async def work() -> None:
        pool = Pool(limits=replace(LIMITS, batch_size=4))
        first = asyncio.create_task(pool.replicas.score(call("first")))
        await asyncio.sleep(0.005)
        others = [call("a"), call("b"), call("c"), call("plain", want_gradient=False), call("larger", size=5)]
        assert await first == "first of 1"
        assert await pool.outcome(*others) == ["a of 2", "b of 2", "c of 1", "plain of 1", "larger of 1"]

        whole_batches = Pool(limits=replace(LIMITS, batch_size=4), mergeable=False)
        await whole_batches.outcome(call("a"), call("b"))
        assert whole_batches.log == [["a"], ["b"]]

    run(work)


def test_what_a_reward_raises_reaches_the_one_who_asked_and_no_other() -> None:
    async def work() -> None:
        pool = Pool(limits=replace(LIMITS, batch_size=8))
        good, bad, last = await pool.outcome(call("good"), call("bad"), call("last"))
        assert (good, last) == ("good of 1", "last of 1")
        assert isinstance(bad, ValueError)
        assert len(pool.made) == 1
        assert not pool.made[0].dead

    run(work)


@pytest.mark.parametrize(("prompt", "what"), [(POISON, "died while it scored"), ("hangs", "did not answer within 0.3")])
def test_a_batch_that_takes_its_replica_along_is_given_up_after_some_and_others_are_not(prompt: str, what: str) -> None:
    async def work() -> None:
        pool = Pool(limits=replace(LIMITS, batch_size=8))
        before, lost, after = await pool.outcome(call("before"), call(prompt), call("after"))
        assert (before, after) == ("before of 1", "after of 1")
        assert isinstance(lost, RewardFailed)
        assert lost.line == str(lost)
        assert lost.line.startswith(f"reward 'ink' {what}")
        assert lost.line.endswith(f"{TRIES} times at the same batch, at the prompts '{prompt}', '{prompt}'")
        assert [replica.dead for replica in pool.made] == [True] * TRIES + [False]
        assert len(pool.replicas.news) == TRIES
        assert pool.replicas.news[-1].endswith("restart 3 of 3 within 10 minutes")
        assert pool.replicas.restarts == TRIES
        assert len(pool.replicas.seconds) == 2  # of the calls that were answered
        assert all(0.01 <= seconds < 0.3 for seconds in pool.replicas.seconds)

    run(work)


def test_one_death_costs_nothing_but_the_call_again() -> None:
    async def work() -> None:
        pool = Pool()
        poison = call(POISON)
        asked = asyncio.create_task(pool.replicas.score(poison))
        await asyncio.sleep(0.005)
        poison.texts = {"r": ["mended"]}
        assert await asked == "mended of 1"

    run(work)


def test_replicas_that_die_in_a_row_are_replaced_after_longer_and_longer_pauses() -> None:
    started: list[float] = []

    def start() -> Scorer:
        started.append(time.monotonic())
        return DiesAtStart([])

    async def run() -> None:
        with pytest.raises(RewardFailed):
            await Replicas("r", start, LIMITS).ready()

    asyncio.run(run())
    _, second, third = (after - before for before, after in pairwise(started))
    assert second >= 0.05
    assert third >= 0.1
    pauses = [replicas.pause(lost) / replicas.FIRST_PAUSE for lost in range(6)]
    assert pauses == [0, 0, 1, 2, 4, 8]
    assert replicas.pause(99) == replicas.LONGEST_PAUSE


def test_too_many_deaths_end_it_for_all_and_for_good() -> None:
    async def work() -> None:
        pool = Pool(limits=replace(LIMITS, max_restarts=1))
        lost = await pool.outcome(call(POISON), call("waits"))
        lost += await pool.outcome(call("later"))
        assert {error.why for error in lost} == {
            "died while it scored; 1 restart within 10 minutes did not help",
        }
        assert all(replica.dead for replica in pool.made)

    run(work)


def test_so_do_too_many_in_a_row_however_far_apart_pauses_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "WINDOW", 0.01)

    async def work() -> None:
        pool = Pool(DiesAtStart, replace(LIMITS, max_restarts=4))
        with pytest.raises(RewardFailed, match="died at its start; 4 restarts in a row did not help"):
            await pool.replicas.ready()
        assert len(pool.made) == 5

    run(work)


@pytest.mark.parametrize(
    ("kind", "why", "starts"),
    [
        (DiesAtStart, "died at its start; 3 restarts within 10 minutes did not help", 4),
        (HangsAtStart, "did not start within 0.3 seconds", 1),
        (RaisesAtStart, "could not start: no weights here", 1),
    ],
)
def test_a_reward_that_does_not_start(kind: type[Scorer], why: str, starts: int) -> None:
    async def work() -> None:
        pool = Pool(kind)
        with pytest.raises(RewardFailed, match=why):
            await pool.replicas.ready()
        assert len(pool.made) == starts

    run(work)


def test_what_is_waited_for_is_told() -> None:
    async def work() -> None:
        pool = Pool(limits=replace(LIMITS, count=2))
        assert list(pool.replicas.waiting()) == []
        asked = asyncio.create_task(pool.outcome(call("hangs", size=5)))
        await asyncio.sleep(0.1)
        [(what, seconds)] = pool.replicas.waiting().items()
        assert what == "reward ink to score 5 images ('hangs', 'hangs', 'hangs' and 2 more)"
        assert 0.05 < seconds < 1
        asked.cancel()

        starting = Pool(HangsAtStart)
        await asyncio.sleep(0.05)
        assert list(starting.replicas.waiting()) == ["reward ink to start"]

    run(work)


def test_nothing_is_waited_for_once_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One dies twice and pauses; the other's death meanwhile is one too many for both."""
    monkeypatch.setattr(replicas, "FIRST_PAUSE", 5.0)
    kinds = iter([DiesAtStart, Scorer, DiesAtStart])

    async def work() -> None:
        both = Replicas("ink", lambda: next(kinds)([]), replace(LIMITS, count=2, max_restarts=1))
        await asyncio.sleep(0.1)
        assert list(both.waiting()) == ["reward ink to start"]
        with pytest.raises(RewardFailed, match="died while it scored; 2 restarts within"):
            await both.score(call(POISON))
        await asyncio.sleep(0)
        assert both.waiting() == {}

    run(work)


def test_the_error_travels() -> None:
    error = RewardFailed("ink", "died", ["a"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "reward 'ink' died, at the prompts 'a'"

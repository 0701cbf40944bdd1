"""Whatever Ray Data does with the batches between prompts and contributions, the stream comes to its end."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
import ray.data
from ray.data._internal.execution import streaming_executor_state
from ray.data._internal.execution.bundle_queue import HashLinkedQueue

from sdo_ray.cluster import cause_of
from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout.paced_schedule import paced
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.settings import LearningSamplerSettings
from sdo_ray.rollout.stream import contribution_stream
from sdo_ray.rollout.watch import Watch
from tests.support.streams import DyingSampler, FakeSampler, Meeting, MeetingSampler

PROMPTS = list("abcdefg")
BATCHES = 4
"""Batches of an update."""
SECONDS = 120.0
"""A stream that takes longer hangs."""


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    # A GPU that Ray counts and nobody uses.
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    yield
    context.enable_progress_bars = before
    ray.shutdown()


def run_stream(
    *,
    updates: int,
    samplers: int = 1,
    lag: int = 0,
    in_flight: int = 1,
    start: int = 0,
    gpus: float = 0.0,
    cpus: float = 0.0,
    policies: Policies | None = None,
    sampler: type = FakeSampler,
    actors: dict[str, Any] | None = None,
    watch: Watch | None = None,
    after_update: Callable[[int], None] = lambda update: None,
) -> list[dict[str, Any]]:
    """All contributions of a stream, in the order of arrival, read by one who publishes as a trainer does.

    It publishes version `update + 1` once it has all contributions to `update`, and calls `after_update`.
    """
    policies = policies or Policies.start(lag)
    actor = LearningSamplerSettings(count=samplers, batch_size=2, num_cpus=cpus, num_gpus=gpus, in_flight=in_flight)
    config: Any = SimpleNamespace(seed=3, samplers=actor)
    dataset = contribution_stream(
        PROMPTS,
        config,
        sampler,
        stop=updates,
        batch_size=2 * BATCHES,
        max_policy_lag=lag,
        policies=policies,
        reward_actors=actors or {},
        watch=watch or Watch.start(),
    )(start)
    dataset.context.execution_options.preserve_order = True  # as the train group does
    result: Future[list[dict[str, Any]]] = Future()

    def read() -> None:
        try:
            contributions, arrived, update = [], Counter[int](), start
            policies.publish(start, b"")
            for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                [contribution] = block.to_pylist()
                contributions.append(contribution)
                arrived[contribution["update"]] += 1
                while arrived[update] == BATCHES:
                    update += 1
                    policies.publish(update, b"")
                    after_update(update - 1)
            result.set_result(contributions)
        except BaseException as error:
            result.set_exception(error)

    # A daemon, so that a stream that hangs fails its test and does not keep the tests from ending.
    threading.Thread(target=read, daemon=True).start()
    return result.result(SECONDS)


def rows_of(contributions: list[dict[str, Any]]) -> list[list[int]]:
    return [contribution["rows"] for contribution in contributions]


def expected_rows(updates: int, start: int = 0) -> list[list[int]]:
    return [[row, row + 1] for row in range(2 * BATCHES * start, 2 * BATCHES * updates, 2)]


class LastComesFirst(HashLinkedQueue):
    """Hands on what came last, so that every batch is overtaken by all that may overtake it."""

    def _get_next_inner(self) -> Any:
        if self._tail is None:
            raise IndexError("You can't pop from an empty queue")
        return self._remove_inner(self._tail.value)

    def peek_next(self) -> Any:
        return None if self._tail is None else self._tail.value


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0, 2])
def test_reversed_between_all_operators_it_ends(local_ray: None, monkeypatch: pytest.MonkeyPatch, lag: int) -> None:
    monkeypatch.setattr(streaming_executor_state, "create_bundle_queue", LastComesFirst)
    contributions = run_stream(updates=6, lag=lag)
    assert rows_of(contributions) != expected_rows(6), "nothing was reversed"
    assert sorted(rows_of(contributions)) == expected_rows(6)
    assert all(c["update"] - lag <= c["version"] <= c["update"] for c in contributions)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_streams_end_in_order(local_ray: None) -> None:
    streams = 200
    failed: list[BaseException] = []

    def some(lags: range) -> None:
        try:
            policies = Policies.start(2)  # a stream with it forgets the versions of the one before
            for lag in lags:
                contributions = run_stream(updates=3, lag=lag % 3, policies=policies)
                assert rows_of(contributions) == expected_rows(3)
        except BaseException as error:
            failed.append(error)

    at_once = 4  # most of a stream's time goes to starting its processes
    readers = [threading.Thread(target=some, args=(range(i, streams, at_once),), daemon=True) for i in range(at_once)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert not failed, failed


@pytest.mark.parametrize("samplers", [2, pytest.param(BATCHES, marks=pytest.mark.slow)])
def test_within_an_update_all_samplers_work_at_once(local_ray: None, samplers: int) -> None:
    """Each batch waits for others in the hands of other samplers, and with lag 0 those can only be of its update."""
    meeting = ray.remote(Meeting).options(num_cpus=0, max_concurrency=100).remote(samplers)
    contributions = run_stream(updates=3, samplers=samplers, sampler=MeetingSampler, actors={"meeting": meeting})
    assert rows_of(contributions) == expected_rows(3)
    assert all(contribution["version"] == contribution["update"] for contribution in contributions)


@pytest.mark.slow
def test_samplers_may_have_gpus(local_ray: None) -> None:
    assert rows_of(run_stream(updates=2, samplers=2, gpus=0.5)) == expected_rows(2)


def test_a_sampler_has_several_batches_in_flight(local_ray: None) -> None:
    meeting = ray.remote(Meeting).options(num_cpus=0, max_concurrency=100).remote(2)
    contributions = run_stream(updates=2, samplers=1, in_flight=2, sampler=MeetingSampler, actors={"meeting": meeting})
    assert rows_of(contributions) == expected_rows(2)


def test_source_and_sampler_may_die(local_ray: None) -> None:
    def kill(title: str) -> None:
        [process] = [p for p in psutil.Process().children(recursive=True) if title in " ".join(p.cmdline())]
        process.kill()

    def after_update(update: int) -> None:
        if update == 1:
            kill("MapWorker(ReadPacedSchedule)")
        if update == 3:
            kill("MapWorker(MapBatches(FakeSampler))")

    contributions = run_stream(updates=6, after_update=after_update)
    assert rows_of(contributions) == expected_rows(6)
    assert all(contribution["version"] == contribution["update"] for contribution in contributions)


def test_a_stream_from_a_checkpoint_on_sees_nothing_of_the_versions_after_it(local_ray: None) -> None:
    """Version 3 is not kept any more when the group goes back to it: batches wait until it is published again."""
    policies = Policies.start(0)
    for version in range(8):
        policies.publish(version, b"before")
    contributions = run_stream(updates=5, start=3, policies=policies)
    assert rows_of(contributions) == expected_rows(5, start=3)
    assert all(contribution["version"] == contribution["update"] for contribution in contributions)


def test_a_stream_of_no_updates_ends(local_ray: None) -> None:
    assert run_stream(updates=2, start=2) == []


@pytest.mark.parametrize(("lag", "needed"), [(0, 3), (2, 1)])
def test_a_batch_is_made_once_its_policy_is_there(
    local_ray: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lag: int, needed: int
) -> None:
    monkeypatch.setattr("sdo_ray.rollout.paced_schedule.LOG_EVERY", 0.2)
    policies = Policies.start(lag)
    policies.publish(needed - 1, b"")
    blocks = list(schedule(PROMPTS, seed=3, batch_size=4, sampler_batch_size=2, start=3, stop=4))
    threading.Timer(1.0, lambda: policies.publish(needed, b"")).start()
    assert list(paced(iter(blocks), lag, policies)) == blocks
    assert f"update 3 waits for policy version {needed}; the newest is {needed - 1}" in caplog.text


def test_a_batch_that_kills_its_sampler_ends_the_stream_by_name(local_ray: None) -> None:
    """Last in this file: the actors of a stream that failed stay for a while, and others here kill theirs by name."""
    watch = Watch.start()
    with pytest.raises(ray.data.exceptions.UserCodeException) as raised:
        run_stream(updates=2, sampler=DyingSampler, watch=watch)
    assert cause_of(raised.value).startswith("samplers died 3 times at update 1, rows 4 to 5 ('")
    news = ray.get(watch.actor.news.remote())
    assert [line.partition(" died at update 1, rows 4 to 5")[0] for line in news] == ["sampler 1"] * 3
    assert news[-1].endswith("; death 3 of 3 there")

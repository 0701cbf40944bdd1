"""Reports, endings and failures, through a real actor."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import ray

from sdo_ray.sealed import Sealed
from sdo_ray.training.channel import Channel, ChannelActor
from sdo_ray.training.decisions import RollBack, Stop
from sdo_ray.training.records import UpdateReport
from tests.support.updates import report


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def channel(local_ray: None) -> Channel:
    return Channel.start()


def update_of(found: UpdateReport | None) -> int | None:
    return None if found is None else found.update


def test_reports_come_in_order_once_each_and_can_be_waited_for(channel: Channel) -> None:
    assert channel.next_report(-1, 0.1) is None
    found: list[UpdateReport | None] = []
    waiting = threading.Thread(target=lambda: found.append(channel.next_report(-1, 30.0)))
    waiting.start()
    channel.report(report(0))
    waiting.join()
    assert [update_of(it) for it in found] == [0]
    channel.report(report(2))
    channel.report(report(1))
    assert update_of(channel.next_report(0, 5.0)) == 1
    assert update_of(channel.next_report(1, 5.0)) == 2


def test_trainers_that_start_again_report_again_and_nobody_sees_it_twice(channel: Channel) -> None:
    for update in (0, 1):
        channel.report(report(update))
    assert update_of(channel.next_report(0, 5.0)) == 1
    channel.report(report(1))
    assert channel.next_report(1, 0.1) is None


def test_nor_does_who_waits_for_the_next_one_already() -> None:
    async def found() -> UpdateReport:
        actor = ChannelActor()
        waiting = asyncio.create_task(actor.next_report(1, 30.0))
        await asyncio.sleep(0)
        for update in (1, 2):
            await actor.report(update, Sealed.of(report(update)))
        given = await waiting
        assert given is not None
        return given[0].open()

    assert asyncio.run(found()).update == 2


def test_an_ending_reaches_the_trainers_at_its_version_and_the_first_stays(channel: Channel) -> None:
    stop = Stop("enough")
    assert channel.report(report(0)) is None
    channel.end(stop, 3)
    channel.end(RollBack(0, "late"), 1)
    assert channel.report(report(1)) is None  # version 2
    assert channel.report(report(2)) == stop
    assert channel.report(report(3)) == stop


def test_giving_up_reaches_the_driver(channel: Channel) -> None:
    assert channel.failure() is None
    channel.give_up("the reward raised ValueError")
    channel.give_up("and so did another")
    assert channel.failure() == "the reward raised ValueError"

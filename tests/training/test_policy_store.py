"""Policy versions and reports, through a real actor."""

import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import ray

from sdo_ray.rollout.gate import PolicyGate
from sdo_ray.training.policy_store import PolicyStore
from sdo_ray.training.records import Spread, UpdateReport


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def store(local_ray: None) -> Any:
    return ray.remote(PolicyStore).options(num_cpus=0, max_concurrency=100).remote(keep=2)


def report(update: int) -> UpdateReport:
    return UpdateReport(update, Spread(0.0, 0.0), {}, 1.0, {}, 0.0, 4, 0, {})


def newest(store: Any, at_most: int) -> tuple[int, bytes]:
    version, [weights] = ray.get(store.newest.remote(at_most))
    return version, ray.get(weights)


def test_samplers_get_the_newest_version_allowed(store: Any) -> None:
    for version in range(4):
        ray.get(store.publish.remote(version, f"weights {version}".encode()))
    assert newest(store, at_most=9) == (3, b"weights 3")
    assert newest(store, at_most=2) == (2, b"weights 2")
    with pytest.raises(LookupError, match=r"up to 1 is kept; there are \[2, 3\]"):
        ray.get(store.newest.remote(1))


def test_going_back_to_a_checkpoint_forgets_what_came_after(store: Any) -> None:
    for version in (5, 6):
        ray.get(store.publish.remote(version, b"before"))
        ray.get(store.report.remote(report(version - 1)))
    ray.get(store.publish.remote(5, b"after"))
    assert newest(store, at_most=9) == (5, b"after")
    assert ray.get(store.next_report.remote(3, 0.1)).update == 4
    assert ray.get(store.next_report.remote(4, 0.1)) is None


def test_reports_come_in_order_and_can_be_waited_for(store: Any) -> None:
    waiting = store.next_report.remote(-1, 30.0)
    ray.get(store.report.remote(report(0)))
    assert ray.get(waiting).update == 0


def test_giving_up_reaches_the_driver(store: Any) -> None:
    assert ray.get(store.failure.remote()) is None
    ray.get(store.give_up.remote("the reward raised ValueError"))
    assert ray.get(store.failure.remote()) == "the reward raised ValueError"


@pytest.mark.parametrize(("lag", "needed"), [(0, 3), (2, 1)])
def test_the_gate_lets_a_batch_pass_with_its_policy(store: Any, lag: int, needed: int) -> None:
    gate = ray.remote(PolicyGate).options(num_cpus=0).remote(store, max_policy_lag=lag)
    block = pa.table({"row": [12, 13], "update": [3, 3], "prompt": ["a", "b"]})
    passing = gate.__call__.remote(block)
    ray.get(store.publish.remote(needed - 1, b""))
    time.sleep(0.5)
    assert ray.wait([passing], timeout=0)[0] == []
    ray.get(store.publish.remote(needed, b""))
    assert ray.get(passing).equals(block)

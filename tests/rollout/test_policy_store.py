"""Policy versions, through a real actor."""

import time
from collections.abc import Iterator

import pyarrow as pa
import pytest
import ray

from sdo_ray.rollout.gate import PolicyGate
from sdo_ray.rollout.policy_store import Policies


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def policies(local_ray: None) -> Policies:
    return Policies.start(max_policy_lag=0)


def test_samplers_get_the_newest_version_allowed(policies: Policies) -> None:
    for version in range(4):
        policies.publish(version, f"weights {version}".encode())
    assert policies.newest(at_most=9) == (3, b"weights 3")
    assert policies.newest(at_most=2) == (2, b"weights 2")
    assert policies.newest(at_most=9, known=3) == (3, None)
    with pytest.raises(LookupError, match=r"up to 1 is kept; there are \[2, 3\]"):
        policies.newest(at_most=1)


def test_going_back_to_a_checkpoint_forgets_what_came_after(policies: Policies) -> None:
    for version in (5, 6):
        policies.publish(version, b"before")
    policies.publish(5, b"after")
    assert policies.newest(at_most=9) == (5, b"after")


@pytest.mark.parametrize(("lag", "needed"), [(0, 3), (2, 1)])
def test_the_gate_lets_a_batch_pass_with_its_policy(policies: Policies, lag: int, needed: int) -> None:
    gate = ray.remote(PolicyGate).options(num_cpus=0).remote(policies, max_policy_lag=lag)
    block = pa.table({"row": [12, 13], "update": [3, 3], "prompt": ["a", "b"]})
    passing = gate.__call__.remote(block)
    policies.publish(needed - 1, b"")
    time.sleep(0.5)
    assert ray.wait([passing], timeout=0)[0] == []
    policies.publish(needed, b"")
    assert ray.get(passing).equals(block)

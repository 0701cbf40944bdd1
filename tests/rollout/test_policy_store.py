"""Policy versions, through a real actor."""

from collections.abc import Iterator

import pytest
import ray

from sdo_ray.rollout import policy_store
from sdo_ray.rollout.policy_store import Policies, Publisher


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


def test_a_store_that_dies_is_filled_again_and_nobody_notices(
    policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_store, "LOOK_EVERY", 0.2)
    with Publisher(policies) as publisher:
        for version in (3, 4):
            publisher.publish(version, f"weights {version}".encode())
        ray.kill(policies.store, no_restart=False)
        assert policies.newest(at_most=9) == (4, b"weights 4")
        assert policies.wait_for(4, 0.0) == 4
        ray.get(policies.go_back(2))
        publisher.publish(2, b"weights 2")
        assert policies.newest(at_most=9) == (2, b"weights 2")


def test_going_back_to_a_checkpoint_forgets_what_came_after(policies: Policies) -> None:
    for version in (5, 6):
        policies.publish(version, b"before")
    policies.publish(5, b"after")
    assert policies.newest(at_most=9) == (5, b"after")


def test_what_a_new_stream_makes_again_is_forgotten_before_anything_is_published(policies: Policies) -> None:
    for version in (4, 5):
        policies.publish(version, b"before")
    ray.get(policies.go_back(4))
    assert policies.newest(at_most=9) == (4, b"before")
    assert policies.wait_for(5, 0.1) == 4
    ray.get(policies.go_back(1))
    assert policies.wait_for(1, 0.1) == -1

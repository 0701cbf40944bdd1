"""What fits a cluster, and what errors of Ray say of their cause."""

import pytest
import ray

from sdo_ray.cluster import Demand, cause_of, check_room, wait_for_others
from sdo_ray.settings import SettingsError


def test_the_cause_of_what_a_task_raised() -> None:
    @ray.remote(max_retries=0)
    def task() -> None:
        raise ValueError("this reward cannot score\nTo change that, give it eyes.")

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(ray.exceptions.RayTaskError) as raised:
            ray.get(task.remote())
    finally:
        ray.shutdown()
    assert "Traceback" in str(raised.value) or "ray::" in str(raised.value)
    assert cause_of(raised.value) == "ValueError: this reward cannot score"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("no: line\n  indented: one\nof.this: form, and\nadvice"), "of.this: form, and"),
        (RuntimeError("of.this: form\nray.Wrapped: it\nadvice"), "of.this: form"),
        (RuntimeError("trace:\nsdo_ray.rollout.watch.BatchFailed: update 3 failed"), "update 3 failed"),
        (RuntimeError("first\nray.ActorDied: killed\nadvice"), "ray.ActorDied: killed"),
        (RuntimeError("OSError: no answer from http://ann:hunter2@host"), "OSError: no answer from http://***host"),
        (RuntimeError("the first\nthe last"), "the last"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_the_cause_of_others(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause


def test_an_actor_larger_than_any_node_is_refused() -> None:
    """Four nodes of two CPUs have eight, and no room for one actor of six."""
    nodes = [{"CPU": 2.0}] * 3 + [{"CPU": 2.0, "GPU": 1.0}]
    check_room([Demand("samplers", 4, 2.0, 0.0), Demand("trainers", 1, 0.0, 1.0)], nodes)
    with pytest.raises(SettingsError, match=r"trainers: 1 x \(6 CPU\) fits no node; the largest has 2 CPU and 1 GPU"):
        check_room([Demand("samplers", 4, 1.0, 0.0), Demand("trainers", 1, 6.0, 0.0)], nodes)
    with pytest.raises(SettingsError, match="fits no node"):
        check_room([Demand("samplers", 1, 3.0, 1.0)], [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}])


def test_what_fits_in_all_has_to_fit_node_by_node() -> None:
    """Three GPUs and one have four, and room for one actor of two."""
    nodes = [{"CPU": 8.0, "GPU": 3.0}, {"CPU": 8.0, "GPU": 1.0}]
    with pytest.raises(SettingsError, match="there is room for 1, and it needs 2; add a node"):
        check_room([Demand("samplers", 2, 0.0, 2.0)], nodes)
    check_room([Demand("samplers", 2, 0.0, 2.0, at_least=1), Demand("rewards", 10, 1.0, 0.1)], nodes)
    check_room([Demand("rewards", 40, 0.1, 0.1), Demand("store", 9, 0.0, 0.0)], nodes)


def test_a_run_that_waits_for_others_says_so() -> None:
    demands = [Demand("samplers", 2, 1.0, 1.0)]
    assert wait_for_others(demands, {"CPU": 2.0, "GPU": 2.0}) is None
    said = wait_for_others(demands, {"CPU": 4.0, "GPU": 1.0})
    assert said == "waiting for others to end: 4 CPU and 1 GPU are free, and the run needs 2 CPU and 2 GPU"
    assert wait_for_others(demands, {"CPU": 1.0, "GPU": 2.0}) is not None

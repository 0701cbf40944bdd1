"""What errors of Ray say of their cause."""

import pytest
import ray

from sdo_ray.cluster import cause_of


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
        (RuntimeError("first\nray.ActorDied: killed\nadvice"), "ray.ActorDied: killed"),
        (RuntimeError("OSError: no answer from http://ann:hunter2@host"), "OSError: no answer from http://***host"),
        (RuntimeError("the first\nthe last"), "the last"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_the_cause_of_others(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause

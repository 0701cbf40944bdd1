"""Runs that learn nothing end, and say why."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from sdo_ray.training.decisions import Abort, Continue, Decision, Stop
from sdo_ray.training.health import Health
from tests.support.updates import report

HEALTHY = {"gradient_norm": 1.0, "num_samples": 8, "num_skipped": 0}
ZERO = HEALTHY | {"gradient_norm": 0.0}
SKIPPED = {"gradient_norm": 0.0, "num_samples": 0, "num_skipped": 8}
FAILED = {"gradient_norm": 1.0, "num_samples": 3, "num_skipped": 5, "failures": ("OSError: no answer",) * 2}
HALF = {"gradient_norm": 1.0, "num_samples": 4, "num_skipped": 4}


def decisions(updates: Sequence[dict]) -> list[Decision]:
    health = Health(max_idle_updates=3, max_skipped_share=0.5)
    return [health.observe(replace(report(update), **changes)) for update, changes in enumerate(updates)]


@pytest.mark.parametrize(
    ("idle", "why"),
    [
        (ZERO, "nothing was learned, every gradient is exactly 0"),
        (SKIPPED, r"8 of 8 samples were skipped \(rewards or gradients that are not finite\)"),
        (FAILED, r"5 of 8 samples were skipped \(OSError: no answer\)"),
    ],
)
def test_idle_updates_are_said_at_once_and_end_the_run_after_some(
    idle: dict, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    *before, last = decisions([idle] * 3)
    assert before == [Continue()] * 2
    assert isinstance(last, Abort)
    assert last.cause.startswith("3 updates in a row: ")
    assert re.search(why, last.cause)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert said[0].startswith("update 1: ")
    assert said[0].endswith("ends after 3 such updates in a row")


def test_healthy_updates_between_start_the_count_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert decisions([ZERO, ZERO, HEALTHY, SKIPPED, FAILED, HALF, ZERO, ZERO]) == [Continue()] * 8
    assert "update 3:" not in capsys.readouterr().out


def test_a_run_that_has_learned_and_has_nothing_left_to_learn_ends_well() -> None:
    assert isinstance(decisions([HEALTHY, ZERO, ZERO, ZERO])[-1], Stop)
    assert isinstance(decisions([HEALTHY, ZERO, SKIPPED, ZERO])[-1], Abort)

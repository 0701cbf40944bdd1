"""A run ends when its time or samples are used up."""

from dataclasses import replace

import pytest

from sdo_ray.training.budget import Budget
from sdo_ray.training.decisions import Continue, Stop
from sdo_ray.training.records import UpdateReport
from tests.support.updates import report


def made(update: int) -> UpdateReport:
    """Half an hour, 8 samples."""
    return replace(report(update), seconds={"update": 1800.0})


@pytest.mark.parametrize(
    ("hours", "samples", "why"), [(2.0, None, "max_hours = 2 are"), (None, 32, "max_samples = 32 are"), (9.0, 30, "30")]
)
def test_all_updates_count_those_of_earlier_commands_too(hours: float | None, samples: int | None, why: str) -> None:
    budget = Budget(hours, samples, [made(0), made(1)])
    assert budget.observe(made(2)) == Continue()
    decision = budget.observe(made(3))
    assert isinstance(decision, Stop)
    assert why in decision.reason


def test_without_limits_it_goes_on() -> None:
    budget = Budget(None, None, [])
    assert all(budget.observe(made(update)) == Continue() for update in range(5))

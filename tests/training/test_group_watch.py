"""Warnings about groups, each once."""

from dataclasses import replace

import pytest

from sdo_ray.rollout.settings import PlanSettings
from sdo_ray.training.group_watch import UPDATES, GroupWatch
from tests.support.updates import report


def watched(capsys: pytest.CaptureFixture[str], options: dict, numbers: dict[str, float], updates: int) -> list[str]:
    watch = GroupWatch(PlanSettings(name="group", options=options), 10)
    for update in range(updates):
        watch.observe(replace(report(update), groups=numbers))
    return capsys.readouterr().out.splitlines()


GOOD = {"flat_share": 0.1, "sign_agreement": 0.9}


@pytest.mark.parametrize(
    ("options", "numbers", "said"),
    [
        ({"children": 4}, GOOD, "warning: samples are compared with 3 others, and advantages are mostly noise below 7"),
        ({}, GOOD | {"flat_share": 0.9}, "warning: in 90% of the groups all rewards are equal, and teach nothing"),
        ({}, GOOD | {"sign_agreement": 0.55}, "warning: whether a sample is better depends on which half of its group"),
    ],
)
def test_each_warning_is_given_once(
    capsys: pytest.CaptureFixture[str], options: dict, numbers: dict[str, float], said: str
) -> None:
    [line] = watched(capsys, options, numbers, 3 * UPDATES)
    assert line.startswith(said)


def test_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert watched(capsys, {}, GOOD, 10) == []
    assert watched(capsys, {"seeds": 2, "children": 4, "baseline": "prompt"}, {}, 10) == []
    assert watched(capsys, {}, {"flat_share": 1.0}, UPDATES - 1) == []

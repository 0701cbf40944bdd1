"""Warnings about groups, each once."""

from dataclasses import replace

import pytest

from sdo_ray.rollout.settings import PlanSettings
from sdo_ray.training.group_watch import UPDATES, GroupWatch, in_words
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
        ({}, GOOD | {"deviation": 0.0, "contrast": 0.2}, "warning: the two policies that NFT compares are one and"),
        ({}, GOOD | {"deviation": 1e-9, "contrast": 0.01}, "warning: NFT weighs good and bad samples almost alike"),
        ({}, GOOD | {"clipped": 0.7}, "warning: 70% of the samples get no gradient, as the policy has moved"),
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


def test_the_numbers_in_words() -> None:
    assert in_words({}) == ""
    assert in_words(GOOD | {"masked": 0.0, "spread": 1.0}) == "groups: 10% flat, 90% signs agree, 0% masked"
    both = {"flat_share": 0.0, "gradient_norm": 2.0, "group_norm": 0.5, "cosine": -0.25}
    assert in_words(both) == "groups: 0% flat, |u|/|g| 0.25, cosine -0.25"
    assert in_words({"flat_share": 0.0, "gradient_norm": 0.0, "group_norm": 0.5}) == "groups: 0% flat"

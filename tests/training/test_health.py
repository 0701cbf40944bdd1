"""Runs that learn nothing end, and say why."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from rewards.terms import RewardTerm
from sdo_ray.rollout.numbers import DIVERGED
from sdo_ray.training.decisions import Abort, Continue, Decision, RollBack, Stop
from sdo_ray.training.health import Health
from sdo_ray.training.records import Spread, UpdateReport
from tests.support.updates import report

HEALTHY = {"gradient_norm": 1.0, "num_samples": 8, "num_skipped": 0, "policy_lag": 0.0}
ZERO = HEALTHY | {"gradient_norm": 0.0}
SKIPPED = {"gradient_norm": 0.0, "num_samples": 0, "num_skipped": 8}
FAILED = {"gradient_norm": 1.0, "num_samples": 3, "num_skipped": 5, "failures": ("OSError: no answer",) * 2}
NAN = SKIPPED | {"reward": Spread(None, None), "failures": (DIVERGED,) * 4}
HALF = {"gradient_norm": 1.0, "num_samples": 4, "num_skipped": 4}


def scored(**means: float | None) -> dict:
    """Raw scores of an update."""
    return {"scores": {key: Spread(mean, None if mean is None else 0.0) for key, mean in means.items()}}


def reports(updates: Sequence[dict]) -> list[UpdateReport]:
    return [replace(report(update), **changes) for update, changes in enumerate(updates)]


def all_kept(updates: int) -> int:
    return updates


def decisions(
    updates: Sequence[dict],
    made: int = 0,
    terms: Sequence[RewardTerm] = (RewardTerm("a", 1.0),),
    newest_kept: Callable[[int], int] = all_kept,
) -> list[Decision]:
    before, after = reports(updates)[:made], reports(updates)[made:]
    health = Health(3, 0.5, terms, newest_kept, before)
    return [health.observe(report) for report in after]


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


@pytest.mark.parametrize("made", [0, 4, 6])
def test_a_run_that_diverges_is_rolled_back_to_the_last_version_that_was_learned_from(made: int) -> None:
    """Also one whose driver died meanwhile, or that an earlier version ended as failed."""
    lagging = HEALTHY | {"policy_lag": 0.5}
    partly = NAN | {"num_samples": 2, "num_skipped": 6}
    last = next(d for d in decisions([HEALTHY, HEALTHY, lagging, NAN, partly, *[NAN] * 6], made) if d != Continue())
    assert isinstance(last, RollBack)
    assert last.version == 1
    assert "it diverged, 3 updates in a row: 8 of 8 samples were skipped" in last.reason


def test_so_is_one_whose_samples_all_saturate_below_where_it_began() -> None:
    saturated = ZERO | {"reward": Spread(0.25, 0.0)}
    *_, last = decisions([HEALTHY, HEALTHY, *[saturated | scored(a=0.25)] * 3])
    assert isinstance(last, RollBack)
    assert last.version == 1
    assert "to a reward of 0.25 from 0.5;" in last.reason
    *_, last = decisions([HEALTHY, HEALTHY, *[saturated | scored(a=1.5)] * 3], terms=[RewardTerm("a", -2.0)])
    assert isinstance(last, RollBack)


def test_one_whose_mixed_reward_rose_has_not() -> None:
    """At first half of its samples scored 0 and half 2, with a cap of 1: 0.5 in the mean, unlike the mean, capped."""
    first, last = HEALTHY | {"reward": Spread(0.5, 0.5)}, ZERO | {"reward": Spread(0.9, 0.0)}
    *_, decided = decisions([first | scored(a=1.0), *[last | scored(a=0.9)] * 3], terms=[RewardTerm("a", 1.0, cap=1.0)])
    assert isinstance(decided, Stop)


@pytest.mark.parametrize("made", [0, 1, 2])
def test_at_its_caps_it_is_satisfied_whatever_it_was_mixed_of_before(made: int) -> None:
    """Weights and caps were others, as the mixed reward shows, or a reward had no score any more, or none at first."""
    at_caps = ZERO | {"reward": Spread(0.1, 0.0)}
    terms = [RewardTerm("a", 0.5, cap=0.6), RewardTerm("b", 1.0), RewardTerm("c", 1.0, target=0.0)]
    for first, last in [
        (scored(a=0.9, c=0.2), scored(a=0.7, c=0.1)),
        (scored(a=0.1, b=5.0), scored(a=0.6, b=None)),
        (scored(b=None), scored(a=0.6, b=-1.0)),
    ]:
        *_, decided = decisions([HEALTHY | first, HEALTHY | first, *[at_caps | last] * 3], made, terms)
        assert isinstance(decided, Stop)


@pytest.mark.parametrize("end", [NAN, ZERO | {"reward": Spread(0.25, 0.0)} | scored(a=0.25)])
def test_one_that_diverges_before_a_version_is_kept_ends_as_failed(end: dict) -> None:
    """Not with the base, as if that were what it was made for."""
    lagging = HEALTHY | {"policy_lag": 1.0}
    asked: list[int] = []

    def newest_kept(updates: int) -> int:
        asked.append(updates)
        return 0

    *_, last = decisions([HEALTHY, HEALTHY, HEALTHY, lagging, end, end, end], newest_kept=newest_kept)
    assert asked == [2]
    assert isinstance(last, Abort)
    assert last.cause.startswith("it diverged, ")
    assert "no version is kept from before" in last.cause


def test_what_a_reward_or_the_base_model_does_is_no_divergence() -> None:
    assert isinstance(decisions([HEALTHY, NAN, SKIPPED, NAN])[-1], Abort)
    assert isinstance(decisions([HEALTHY, NAN, FAILED, NAN])[-1], Abort)
    assert isinstance(decisions([NAN, NAN, NAN])[-1], Abort)

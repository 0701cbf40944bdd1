"""What an update reports, from what arrived."""

import json
import math
from dataclasses import replace

import pytest

from sdo_ray.rollout.looks import HeldOutMeans
from sdo_ray.rollout.records import Contribution, Seconds
from sdo_ray.training.records import Spread, UpdateReport, summarize


def contribution(**changes: object) -> Contribution:
    values: dict[str, object] = {
        "update": 4,
        "policy_version": 4,
        "first_row": 0,
        "num_samples": 2,
        "num_skipped": 0,
        "scores": {"a": [1.0, 3.0]},
        "mixed": [1.0, 3.0],
        "step_norms": {1: 2.0},
        "seconds": Seconds(1.0, 2.0, 3.0),
    }
    return Contribution(**values | changes)


def test_spread_in_closed_form() -> None:
    assert Spread.of([1.0, 3.0]) == Spread(2.0, 1.0)
    assert Spread.of([5.0]) == Spread(5.0, 0.0)
    assert Spread.of([math.nan, 1.0, math.inf, 3.0, -math.inf]) == Spread(2.0, 1.0)
    assert Spread.of([None, 1.0, 3.0]) == Spread(2.0, 1.0)
    assert Spread.of([math.nan]) == Spread(None, None)
    assert Spread.of([]) == Spread(None, None)


def test_a_summary_is_over_samples_and_batches() -> None:
    late = contribution(
        policy_version=2,
        first_row=2,
        num_samples=1,
        num_skipped=1,
        scores={"a": [5.0, math.nan]},
        mixed=[5.0],
        step_norms={1: 4.0, 7: 1.0},
        seconds=Seconds(3.0, 4.0, 5.0),
        failure="OSError: no answer",
        num_splits=2,
        held_out=HeldOutMeans(3, {"b": 0.5}),
    )
    report = summarize([contribution(), late], gradient_norm=0.5, waiting=6.0, seconds=9.0)
    assert (report.update, report.num_splits, report.held_out) == (4, 2, HeldOutMeans(3, {"b": 0.5}))
    assert report.reward.mean == pytest.approx(3.0)
    assert report.reward.std == pytest.approx(math.sqrt(8 / 3))
    assert report.scores["a"].mean == pytest.approx(3.0)
    assert report.step_norms == {1: 3.0, 7: 1.0}
    assert report.policy_lag == 1.0  # two samples with lag 0, two with lag 2
    assert (report.num_samples, report.num_skipped) == (3, 1)
    assert report.seconds == {"sampling": 2.0, "rewarding": 3.0, "backward": 4.0, "waiting": 6.0, "update": 9.0}
    assert report.failures == ("OSError: no answer",)
    left_out = report.without_step()
    assert (left_out.num_samples, left_out.num_skipped, left_out.reward) == (0, 4, report.reward)


def test_an_update_in_which_no_sample_counts() -> None:
    lost = contribution(num_samples=0, num_skipped=2, scores={"a": [math.nan, math.nan]}, mixed=[])
    report = summarize([lost], gradient_norm=0.0, waiting=0.0, seconds=1.0)
    assert report.reward == Spread(None, None)
    assert report.num_skipped == 2


def test_numbers_survive_json_and_images_stay_out() -> None:
    report = replace(summarize([contribution()], gradient_norm=0.1, waiting=0.2, seconds=0.3), preview=b"png")
    report = replace(report, reward_health={"a": {"restarts": 1.0}})
    again = UpdateReport.from_json(json.loads(json.dumps(report.to_json())))
    assert again.preview is None
    assert again == UpdateReport(**vars(report) | {"preview": None, "reward_health": {}})

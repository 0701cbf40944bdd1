"""Paired comparisons against closed forms and simulation."""

import math

import numpy as np
import pyarrow as pa
import pytest

from sdo_ray.evaluation.compare import as_table, compare, compare_all


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    c = compare("judge", [0.0, 1.0, 5.0], [0.5, 1.5, 5.5])
    assert (c.judge, c.num_pairs, c.base, c.aligned) == ("judge", 3, 2.0, 2.5)
    assert (c.difference, c.low, c.high, c.win_rate) == (0.5, 0.5, 0.5, 1.0)


def test_two_pairs_in_closed_form() -> None:
    """Resampled means of {0, 1} are 0, 1/2, 1 with probability 1/4, 1/2, 1/4; so the interval is [0, 1]."""
    c = compare("judge", [0.0, 0.0], [0.0, 1.0])
    assert (c.difference, c.low, c.high) == (0.5, 0.0, 1.0)
    assert c.win_rate == 0.75  # a win and a tie


def test_the_interval_of_many_pairs_is_that_of_the_normal_approximation() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1.0, 2000)
    c = compare("judge", np.zeros(2000).tolist(), differences.tolist(), resamples=4000)
    half = 1.96 * differences.std() / math.sqrt(2000)
    assert c.low == pytest.approx(c.difference - half, abs=0.005)
    assert c.high == pytest.approx(c.difference + half, abs=0.005)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    trials, covered = 400, 0
    for _ in range(trials):
        base = draw.normal(0.0, 2.0, 60)
        aligned = base + draw.normal(0.5, 1.0, 60)
        c = compare("judge", base.tolist(), aligned.tolist(), resamples=500)
        covered += c.low <= 0.5 <= c.high
    # 95 %, less about 1 % for the percentile bootstrap at 60 pairs; the standard error of 400 trials is 1.1 %.
    assert 0.91 <= covered / trials <= 0.98


def test_pairs_without_two_finite_scores_are_left_out_and_counted() -> None:
    c = compare("judge", [1.0, math.nan, 2.0, 3.0, 9.0], [2.0, 5.0, 3.0, math.inf, None])  # type: ignore[list-item]
    assert c.num_pairs == 2
    assert (c.base, c.aligned, c.difference) == (1.5, 2.5, 1.0)


def test_one_pair_is_too_few() -> None:
    with pytest.raises(ValueError, match="judge: 1 of 2 pairs have finite scores; an interval takes two or more"):
        compare("judge", [1.0, math.nan], [2.0, 3.0])


def test_equal_scores_give_equal_intervals() -> None:
    scores = np.random.default_rng(2).normal(size=(2, 30)).tolist()
    assert compare("judge", *scores) == compare("judge", *scores)


def test_every_judge_of_a_table() -> None:
    table = pa.table(
        {"index": [0, 1], "base": [b"", b""], "base.a": [0.0, 1.0], "base.m:B": [5.0, 5.0]}
        | {"aligned.a": [1.0, 2.0], "aligned.m:B": [4.0, 6.0]}
    )
    comparisons = compare_all(table)
    assert [c.judge for c in comparisons] == ["a", "m:B"]
    assert [c.difference for c in comparisons] == [1.0, 0.0]
    lines = as_table(comparisons).splitlines()
    assert len(lines) == 3
    assert "+1.000 [+1.000, +1.000]" in lines[1]
    assert lines[1].endswith("100%")

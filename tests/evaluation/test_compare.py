"""Paired comparisons."""

import math

import numpy as np
import pytest
from scipy import stats

from sdo_ray.evaluation.compare import paired


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    c = paired([0.0, 1.0, 5.0], [0.5, 1.5, 5.5])
    assert (c.num_pairs, c.before, c.after) == (3, 2.0, 2.5)
    assert (c.difference, c.low, c.high, c.win_rate) == (0.5, 0.5, 0.5, 1.0)


def test_two_pairs_in_closed_form() -> None:
    """Student's t with one degree of freedom: 1/2 -+ t / 2."""
    c = paired([0.0, 0.0], [0.0, 1.0])
    t = stats.t.ppf(0.975, 1)
    assert (c.difference, c.low, c.high) == pytest.approx((0.5, 0.5 - t / 2, 0.5 + t / 2))
    assert c.win_rate == 0.75  # a win and a tie


def test_few_prompts_are_never_called_higher() -> None:
    for count, says in ((2, "unclear"), (7, "unclear"), (8, "higher")):
        differences = 1 + 0.01 * np.arange(count)
        assert paired(np.zeros(count), differences).low > 0
        assert paired(np.zeros(count), differences).says == says
    assert paired(np.arange(8.0), np.zeros(8)).says == "lower"
    assert paired(np.zeros(8), [1.0, -1.0] * 4).says == "unclear"


def test_pairs_without_two_finite_scores_are_skipped_and_counted() -> None:
    c = paired([1.0, math.nan, 2.0, 3.0, 9.0], [2.0, 5.0, 3.0, math.inf, None])  # type: ignore[list-item]
    assert (c.num_pairs, c.num_clusters) == (2, 2)
    assert (c.before, c.after, c.difference) == (1.5, 2.5, 1.0)


def test_one_pair_is_too_few() -> None:
    with pytest.raises(ValueError, match="1 of 2 pairs have finite scores; an interval takes two or more"):
        paired([1.0, math.nan], [2.0, 3.0])


def test_a_prompt_counts_once_however_many_images_it_has() -> None:
    """Every pair ten times over says no more: with prompts as clusters, the interval stays as it was."""
    differences = np.random.default_rng(3).normal(0.2, 1.0, 40)
    prompts = [f"prompt {i}" for i in range(40)]
    once = paired(np.zeros(40).tolist(), differences.tolist(), prompts)
    often = paired(np.zeros(400).tolist(), np.repeat(differences, 10).tolist(), np.repeat(prompts, 10).tolist())
    naive = paired(np.zeros(400).tolist(), np.repeat(differences, 10).tolist())
    assert (often.num_pairs, often.num_clusters) == (400, 40)
    assert often.difference == pytest.approx(once.difference)
    assert [often.low, often.high] == pytest.approx([once.low, once.high])
    assert naive.high - naive.low == pytest.approx((once.high - once.low) / math.sqrt(10), rel=0.1)


def test_what_clusters_are_called_is_of_no_matter() -> None:
    """Each pair a cluster of its own is no clusters at all, to the bit, whatever the names and their order."""
    before, after = np.random.default_rng(6).normal(size=(2, 30)).tolist()
    names = [f"a {'long ' * 1000}prompt {(7 * i) % 30}" for i in range(30)]
    assert paired(before, after, names) == paired(before, after)

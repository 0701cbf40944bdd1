"""Paired comparisons against closed forms and simulation."""

import math

import numpy as np
import pytest

from sdo_ray.evaluation.compare import paired, resampled_means


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    c = paired([0.0, 1.0, 5.0], [0.5, 1.5, 5.5])
    assert (c.num_pairs, c.before, c.after) == (3, 2.0, 2.5)
    assert (c.difference, c.low, c.high, c.win_rate) == (0.5, 0.5, 0.5, 1.0)


def test_two_pairs_in_closed_form() -> None:
    """Resampled means of {0, 1} are 0, 1/2, 1 with probability 1/4, 1/2, 1/4; so the interval is [0, 1]."""
    c = paired([0.0, 0.0], [0.0, 1.0])
    assert (c.difference, c.low, c.high) == (0.5, 0.0, 1.0)
    assert c.win_rate == 0.75  # a win and a tie


def test_the_interval_of_many_pairs_is_that_of_the_normal_approximation() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1.0, 2000)
    c = paired(np.zeros(2000).tolist(), differences.tolist(), resamples=4000)
    half = 1.96 * differences.std() / math.sqrt(2000)
    assert c.low == pytest.approx(c.difference - half, abs=0.005)
    assert c.high == pytest.approx(c.difference + half, abs=0.005)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    trials, covered = 400, 0
    for _ in range(trials):
        base = draw.normal(0.0, 2.0, 60)
        aligned = base + draw.normal(0.5, 1.0, 60)
        c = paired(base.tolist(), aligned.tolist(), resamples=500)
        covered += c.low <= 0.5 <= c.high
    # 95 %, less about 1 % for the percentile bootstrap at 60 pairs; the standard error of 400 trials is 1.1 %.
    assert 0.91 <= covered / trials <= 0.98


def test_pairs_without_two_finite_scores_are_skipped_and_counted() -> None:
    c = paired([1.0, math.nan, 2.0, 3.0, 9.0], [2.0, 5.0, 3.0, math.inf, None])  # type: ignore[list-item]
    assert c.num_pairs == 2
    assert (c.before, c.after, c.difference) == (1.5, 2.5, 1.0)


def test_one_pair_is_too_few() -> None:
    with pytest.raises(ValueError, match="1 of 2 pairs have finite scores; an interval takes two or more"):
        paired([1.0, math.nan], [2.0, 3.0])


def test_equal_scores_give_equal_intervals() -> None:
    scores = np.random.default_rng(2).normal(size=(2, 30)).tolist()
    assert paired(*scores) == paired(*scores)


def test_a_prompt_counts_once_however_many_images_it_has() -> None:
    """Every pair ten times over says no more: with prompts as clusters, the interval stays as it was."""
    differences = np.random.default_rng(3).normal(0.2, 1.0, 40)
    prompts = [f"prompt {i}" for i in range(40)]
    once = paired(np.zeros(40).tolist(), differences.tolist(), prompts)
    often = paired(np.zeros(400).tolist(), np.repeat(differences, 10).tolist(), np.repeat(prompts, 10).tolist())
    naive = paired(np.zeros(400).tolist(), np.repeat(differences, 10).tolist())
    assert often.num_pairs == 400
    assert often.difference == pytest.approx(once.difference)
    assert [often.low, often.high] == pytest.approx([once.low, once.high])
    assert naive.high - naive.low == pytest.approx((once.high - once.low) / math.sqrt(10), rel=0.1)


def test_what_clusters_are_called_is_of_no_matter() -> None:
    """Each pair a cluster of its own is no clusters at all, to the bit, whatever the names and their order."""
    before, after = np.random.default_rng(6).normal(size=(2, 30)).tolist()
    names = [f"a {'long ' * 1000}prompt {(7 * i) % 30}" for i in range(30)]
    assert paired(before, after, names) == paired(before, after)
    values, clusters = np.arange(6.0), [2, 0, 2, 1, 0, 1]
    renamed = [{2: "x", 0: "z", 1: "y"}[name] for name in clusters]
    assert np.array_equal(resampled_means(values, clusters), resampled_means(values, renamed))


def test_the_cluster_interval_covers_the_truth_where_the_naive_one_does_not() -> None:
    """Difference of prompt p: 0.5 + a_p, of its image q: + e_pq; a_p has most of the variance."""
    draw = np.random.default_rng(4)
    trials, covered, naively = 300, 0, 0
    prompts = np.repeat(np.arange(40), 4)
    for _ in range(trials):
        after = 0.5 + draw.normal(0, 1, 40)[prompts] + draw.normal(0, 0.5, 160)
        by_prompt = paired(np.zeros(160).tolist(), after.tolist(), prompts.tolist(), resamples=400)
        by_image = paired(np.zeros(160).tolist(), after.tolist(), resamples=400)
        covered += by_prompt.low <= 0.5 <= by_prompt.high
        naively += by_image.low <= 0.5 <= by_image.high
    assert 0.89 <= covered / trials <= 0.98
    assert naively / trials < 0.8


def test_clusters_of_different_sizes_in_closed_form() -> None:
    """Two clusters, {0} and {1, 1, 1}: resampled means are 0, 3/4 and 1."""
    p = paired([0.0] * 4, [0.0, 1.0, 1.0, 1.0], list("abbb"))
    assert (p.difference, p.low, p.high) == (0.75, 0.0, 1.0)


def test_many_pairs_are_resampled_in_chunks_with_the_same_result() -> None:
    differences = np.random.default_rng(5).normal(size=5000)
    p = paired(np.zeros(5000).tolist(), differences.tolist(), resamples=1000)
    picks = np.random.default_rng(0).integers(5000, size=(1000, 5000))
    assert [p.low, p.high] == pytest.approx(np.percentile(differences[picks].mean(axis=1), [2.5, 97.5]), abs=1e-12)

"""Limits against closed forms, scipy's and simulation."""

import numpy as np
import pytest
from scipy import stats

from sdo_ray.evaluation.intervals import (
    clusters_needed,
    effective_count,
    mean_limits,
    numbered,
    rate_difference_limits,
    rate_limits,
)

SKEWED = {
    "normal": (lambda draw, n: draw.normal(size=n), 0.0),
    "skewed": (lambda draw, n: draw.exponential(size=n), 1.0),
}


def test_without_skewness_it_is_students() -> None:
    values = np.array([-3.0, -1.0, -0.5, 0.5, 1.0, 3.0, 2.0, -2.0]) + 5
    low, high = mean_limits(values, range(8), 0.975)
    assert (low, high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))


@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize("count", [8, 16, 48, 200])
def test_the_interval_covers_the_truth_as_often_as_it_says(count: int, kind: str) -> None:
    """Within 2 points of 95 %; the standard error of 2000 trials is half a point."""
    sample, truth = SKEWED[kind]
    draw, trials, covered = np.random.default_rng(0), 2000, 0
    for _ in range(trials):
        low, high = mean_limits(sample(draw, count), range(count), 0.975)
        covered += low <= truth <= high
    assert covered / trials == pytest.approx(0.95, abs=0.02)


def test_the_interval_of_clusters_covers_the_truth() -> None:
    """Value of image q of prompt p: a_p + e_pq with most of the variance in a_p, 1 to 4 images of a prompt."""
    draw, trials, covered = np.random.default_rng(4), 1000, 0
    prompts = np.repeat(np.arange(24), np.arange(24) % 4 + 1)
    for _ in range(trials):
        values = draw.normal(0, 1, 24)[prompts] + draw.normal(0, 0.5, len(prompts))
        low, high = mean_limits(values, prompts, 0.975)
        covered += low <= 0 <= high
    assert covered / trials == pytest.approx(0.95, abs=0.025)


def test_no_spread_no_width_and_too_few() -> None:
    assert mean_limits([0.2, 0.2, 0.2], "abc", 0.95) == pytest.approx((0.2, 0.2))
    with pytest.raises(ValueError, match="two clusters or more; got 1"):
        mean_limits([1.0, 2.0], "aa", 0.95)


def test_rates_are_those_of_clopper_and_pearson() -> None:
    for hits, count in ((0, 48), (3, 20), (20, 20)):
        events = [1.0] * hits + [0.0] * (count - hits)
        exact = stats.binomtest(hits, count).proportion_ci(0.9, "exact")
        assert rate_limits(events, range(count), 0.95) == pytest.approx((exact.low, exact.high))
    assert rate_limits([0.0] * 48, range(48), 0.95)[1] == pytest.approx(0.0605, abs=5e-4)


def test_images_that_are_alike_are_worth_one() -> None:
    draw = np.random.default_rng(2)
    events = (draw.random(60) < 0.3).astype(float)
    alike, prompts = np.repeat(events, 5), numbered(np.repeat(np.arange(60), 5))
    assert effective_count(alike, prompts) == pytest.approx(60, rel=0.05)
    assert effective_count((draw.random(300) < 0.3).astype(float), prompts) > 200
    assert effective_count(np.zeros(300), prompts) == 60  # nothing seen says nothing of how alike they are


@pytest.mark.parametrize(("p", "q"), [(0.1, 0.1), (0.02, 0.02), (0.5, 0.4)])
def test_a_difference_of_rates_misses_the_truth_as_seldom_as_it_says(p: float, q: float) -> None:
    """Of paired events with correlation: the upper 95 % limit is below the true difference in about 5 %."""
    draw, trials, missed = np.random.default_rng(3), 1000, 0
    for _ in range(trials):
        common, own = draw.random(64), draw.random((2, 64))
        shared = draw.random(64) < 0.5
        a, b = (np.where(shared, common, own[i]) < rate for i, rate in enumerate((p, q)))
        missed += rate_difference_limits(a, b, 1.0, range(64), 0.95)[1] < p - q
    assert missed / trials <= 0.07


def test_against_a_rate_that_is_zero_it_is_wilsons() -> None:
    z2 = stats.norm.ppf(0.95) ** 2
    low, high = rate_difference_limits([0.0] * 48, [0.0] * 48, 1.0, range(48), 0.95)
    assert (low, high) == pytest.approx((-z2 / (48 + z2), z2 / (48 + z2)))


def test_how_many_it_takes() -> None:
    assert [clusters_needed(c) for c in (0.9, 0.95, 0.99, 0.999)] == [8, 8, 8, 10]
    assert 2 ** -clusters_needed(0.999) <= 0.001 < 2 ** -(clusters_needed(0.999) - 1)

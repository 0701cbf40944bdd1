"""Confidence limits that hold with few prompts: of means, of rates, and of a rate against another.

Images of one prompt are alike, so several of them say less than as many of different prompts. All limits are therefore
those of clusters, the images of a prompt.

Notation
    y_i           values of images, i = 1 .. N
    c = 1 .. C    clusters, with n_c images each
    m             mean of all y_i
    e_c           sum of (y_i - m) over the cluster, times C / N: the mean's error is their mean (linearised ratio)
    s^2, g        variance and skewness of e_c
    t             quantile of Student's t with C - 1 degrees of freedom
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

FEWEST = 8
"""Clusters from which on the limits of a mean hold what they say, by simulation (its tests)."""


def clusters_needed(confidence: float) -> int:
    """Clusters below which no difference is clear at a one-sided confidence, in (0.5, 1), however large it is.

    If all C clusters say the same, then at no true difference that comes about with probability 2^-C (sign test).
    """
    return max(FEWEST, math.ceil(math.log2(1 / (1 - confidence)) - 1e-9))


def mean_limits(values: Sequence[float] | Array, clusters: Sequence[Any], confidence: float) -> tuple[float, float]:
    """One-sided limits of a mean: each misses the true one, on its side, in at most about 1 - confidence of all cases.

    On each side the wider of two: Student's, m -+ t s / sqrt(C), exact for normal e_c; and Hall's (1992, On the removal
    of skewness by transformation, eq. 2.4 inverted), which takes off what skewness does to it,

        m - s h(+-t),   h(t) = 3 / g [(1 + g (t / sqrt(C) - g / (6 C)))^(1/3) - 1].

    Args:
        values: finite, [N].
        clusters: N names; equal ones are one cluster.
        confidence: in (0.5, 1).

    Returns:
        The lower and the upper one; without any spread both are the mean.

    Raises:
        ValueError: fewer than two clusters.
    """
    y, group = np.asarray(values, dtype=float), numbered(clusters)
    count = _count(group)
    if count < 2:
        raise ValueError(f"a limit takes two clusters or more; got {count}")
    mean = float(y.mean())
    errors = np.bincount(group, y - mean) * count / len(y)
    deviation = float(errors.std(ddof=1))
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return mean, mean
    t = float(stats.t.ppf(confidence, count - 1))
    skewness = float(stats.skew(errors, bias=False)) if count > 2 else 0.0
    below, above = (max(t / math.sqrt(count), side * _hall(side * t, count, skewness)) for side in (1, -1))
    return mean - deviation * below, mean + deviation * above


def rate_limits(events: Sequence[float] | Array, clusters: Sequence[Any], confidence: float) -> tuple[float, float]:
    """One-sided limits of a rate, exact for one image a cluster (Clopper & Pearson 1934).

    With several, the number of images counts as what they are worth: N over the design effect (Korn & Graubard 1998),
    and as that of the clusters where all images say the same. No event in 48 prompts: at most 6.1 % at 95 %.

    Args:
        events: whether it happened, [N].
        clusters: N names.
        confidence: in (0.5, 1).
    """
    y = np.asarray(events, dtype=float)
    rate, count = float(y.mean()), effective_count(y, numbered(clusters))
    hits, misses = rate * count, (1 - rate) * count
    low = float(stats.beta.ppf(1 - confidence, hits, misses + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(confidence, hits + 1, misses)) if misses > 0 else 1.0
    return low, high


def rate_difference_limits(
    events: Sequence[float] | Array,
    others: Sequence[float] | Array,
    factor: float,
    clusters: Sequence[Any],
    confidence: float,
) -> tuple[float, float]:
    """One-sided limits of p - factor q, rates of paired events.

    From the Wilson limits l, u of each rate (Newcombe 1998, Statistics in Medicine 17:2635, method 10, for factor 1;
    Zou & Donner 2008 for others), with r the pairs' correlation:

        low = p - f q - sqrt((p - l_p)^2 - 2 r (p - l_p) f (u_q - q) + f^2 (u_q - q)^2), and likewise high.

    Args:
        events: of the one, [N].
        others: of the other, the same prompts and noise.
        factor: of the other rate, 0 or more.
        clusters: N names.
        confidence: in (0.5, 1).
    """
    a, b, group = np.asarray(events, dtype=float), np.asarray(others, dtype=float), numbered(clusters)
    (p, p_low, p_high), (q, q_low, q_high) = (_wilson(y, group, confidence) for y in (a, b))
    spread = a.std() * b.std()
    r = float(((a - p) * (b - q)).mean() / spread) if spread > 0 else 0.0

    def distance(own: float, other: float) -> float:
        return math.sqrt(max(0.0, own**2 - 2 * r * own * factor * other + (factor * other) ** 2))

    difference = p - factor * q
    return difference - distance(p - p_low, q_high - q), difference + distance(p_high - p, q - q_low)


def prompts_for_rate(rate: float, confidence: float) -> int | None:
    """The fewest prompts, one image each, with which a rate can be told to be at most `rate`; None if none do.

    With no event in n, the upper limit of `rate_limits` is 1 - (1 - confidence)^(1/n).
    """
    if rate >= 1:
        return 1
    return None if rate <= 0 else math.ceil(math.log(1 - confidence) / math.log1p(-rate) - 1e-9)


def effective_count(values: Array, group: NDArray[np.int64]) -> float:
    """How many independent images 0/1 values of clusters are worth, between the number of clusters and N."""
    size, count, rate = len(values), _count(group), float(values.mean())
    if count == size:
        return float(size)
    if rate in (0.0, 1.0):
        return float(count)
    errors = np.bincount(group, values - rate) / size
    variance = float((errors**2).sum()) * count / (count - 1) if count > 1 else math.inf
    return min(float(size), max(float(count), rate * (1 - rate) / variance if variance > 0 else float(size)))


def numbered(clusters: Iterable[Any]) -> NDArray[np.int64]:
    """Names as numbers 0, 1, .. in the order in which they come first: what they are called is of no matter."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.int64)


def _count(group: NDArray[np.int64]) -> int:
    return int(group.max()) + 1 if group.size else 0


def _hall(t: float, count: int, skewness: float) -> float:
    """h(t); without skewness it is t / sqrt(count)."""
    u = t / math.sqrt(count) - skewness / (6 * count)
    return u if abs(skewness) < 1e-6 else 3 / skewness * float(np.cbrt(1 + skewness * u) - 1)


def _wilson(values: Array, group: NDArray[np.int64], confidence: float) -> tuple[float, float, float]:
    """A rate with its lower and upper limit (Wilson 1927)."""
    rate, count, z = float(values.mean()), effective_count(values, group), float(stats.norm.ppf(confidence))
    middle = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    return rate, max(0.0, middle - half), min(1.0, middle + half)

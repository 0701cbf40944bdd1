"""Is one model better than another? Paired differences with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Paired:
    """Scores of two models for the same prompts and noise."""

    num_pairs: int
    """Pairs with two finite scores; the others are not in the numbers below."""
    before: float
    """Mean of the one model."""
    after: float
    """Mean of the other."""
    difference: float
    """Mean paired difference, after - before."""
    low: float
    """Lower end of the difference's 95 % bootstrap interval."""
    high: float
    """Upper end."""
    win_rate: float
    """Share of pairs in which the other model scores higher; ties count half."""


def paired(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[Any] | None = None,
    *,
    resamples: int = 10_000,
) -> Paired:
    """Mean paired difference with a percentile bootstrap (Efron 1979).

    Images of one prompt are alike, so several of them say less than as many of different prompts: whole clusters are
    resampled (Davison & Hinkley 1997, section 3.8), each resample's difference being the sum over its pairs by their
    number.

    Args:
        before: scores of the one model.
        after: scores of the other, in the same order.
        clusters: what a pair belongs to, such as its prompt; by default each pair is a cluster.
        resamples: bootstrap resamples; their seed is fixed, so equal scores give equal intervals.

    Raises:
        ValueError: fewer than two clusters have pairs of finite scores.
    """
    pairs = np.stack([np.asarray(before, dtype=float), np.asarray(after, dtype=float)])
    finite = np.isfinite(pairs).all(axis=0)
    pairs = pairs[:, finite]
    if clusters is None:
        group = np.arange(pairs.shape[1])
    else:
        group = _numbered([name for name, counts in zip(clusters, finite, strict=True) if counts])
    count = int(group.max()) + 1 if group.size else 0
    if count < 2:
        kind = "pairs" if clusters is None else "clusters of pairs"
        raise ValueError(f"{count} of {len(before)} {kind} have finite scores; an interval takes two or more")
    differences = pairs[1] - pairs[0]
    low, high = np.percentile(resampled_means(differences, group, resamples=resamples), [2.5, 97.5])
    wins = (differences > 0).mean() + 0.5 * (differences == 0).mean()
    means_of_both = pairs.mean(axis=1)
    return Paired(len(differences), *map(float, (*means_of_both, differences.mean(), low, high, wins)))


def resampled_means(values: np.ndarray, clusters: Sequence[Any] | np.ndarray, *, resamples: int = 10_000) -> np.ndarray:
    """Means over bootstrap samples that draw clusters with replacement, each with all of its values.

    Args:
        values: [N].
        clusters: N names or numbers; equal ones are one cluster.
        resamples: bootstrap resamples; their seed is fixed, so equal values give equal means.

    Returns:
        [resamples].
    """
    group = _numbered(clusters)
    sums, sizes = np.bincount(group, values), np.bincount(group)
    draw, means = np.random.default_rng(0), []
    for rows in _chunks(resamples, len(sums)):
        picks = draw.integers(len(sums), size=(rows, len(sums)))
        means.append(sums[picks].sum(axis=1) / sizes[picks].sum(axis=1))
    return np.concatenate(means)


def _numbered(clusters: Iterable[Any]) -> np.ndarray:
    """The clusters' names as numbers 0, 1, .. in the order in which they come first: what they are called is of no
    matter to the resamples."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.int64)


def _chunks(resamples: int, count: int) -> Iterator[int]:
    """Resamples at once, so that some million picks are in memory."""
    size = max(1, 4_000_000 // count)
    for first in range(0, resamples, size):
        yield min(size, resamples - first)

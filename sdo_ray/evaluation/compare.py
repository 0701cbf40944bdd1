"""Is one model better than another? Paired differences with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdo_ray.evaluation.intervals import FEWEST, mean_limits


@dataclass(frozen=True)
class Paired:
    """Scores of two models for the same prompts and noise."""

    num_pairs: int
    """Pairs with two finite scores; the others are not in the numbers below."""
    num_clusters: int
    """Clusters, such as prompts, that they are of."""
    before: float
    """Mean of the one model."""
    after: float
    """Mean of the other."""
    difference: float
    """Mean paired difference, after - before."""
    low: float
    """Lower end of the difference's 95 % interval."""
    high: float
    """Upper end."""
    win_rate: float
    """Share of pairs in which the other model scores higher; ties count half."""

    @property
    def says(self) -> str:
        """`higher` or `lower` where the interval is on one side of 0, else `unclear`; with few prompts it is that too,
        for then the interval may not hold what it says."""
        if self.num_clusters < FEWEST:
            return "unclear"
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "unclear"


def paired(before: Sequence[float], after: Sequence[float], clusters: Sequence[Any] | None = None) -> Paired:
    """Mean paired difference with its 95 % interval, see `mean_limits`.

    Args:
        before: scores of the one model.
        after: scores of the other, in the same order.
        clusters: what a pair belongs to, such as its prompt; by default each pair is a cluster.

    Raises:
        ValueError: fewer than two clusters have pairs of finite scores.
    """
    pairs = np.stack([np.asarray(before, dtype=float), np.asarray(after, dtype=float)])
    finite = np.isfinite(pairs).all(axis=0)
    pairs = pairs[:, finite]
    names = range(len(before)) if clusters is None else clusters
    group = [name for name, counts in zip(names, finite, strict=True) if counts]
    if (count := len(set(group))) < 2:
        kind = "pairs" if clusters is None else "clusters of pairs"
        raise ValueError(f"{count} of {len(before)} {kind} have finite scores; an interval takes two or more")
    differences = pairs[1] - pairs[0]
    low, high = mean_limits(differences, group, 0.975)
    wins = (differences > 0).mean() + 0.5 * (differences == 0).mean()
    numbers = map(float, (*pairs.mean(axis=1), differences.mean(), low, high, wins))
    return Paired(len(differences), count, *numbers)

"""Is the aligned model better? Paired differences with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Comparison:
    """One judge's scores of aligned against base pictures, same prompts and noise."""

    judge: str
    """Name of the reward."""
    num_pairs: int
    """Pairs with two finite scores; the others are not in the numbers below."""
    base: float
    """Mean score of the base model."""
    aligned: float
    """Mean score of the aligned model."""
    difference: float
    """Mean paired difference, aligned - base."""
    low: float
    """Lower end of the difference's 95 % bootstrap interval."""
    high: float
    """Upper end."""
    win_rate: float
    """Share of pairs in which the aligned picture scores higher; ties count half."""


def compare(judge: str, base: Sequence[float], aligned: Sequence[float], *, resamples: int = 10_000) -> Comparison:
    """Paired comparison with a percentile bootstrap (Efron 1979) over prompts.

    Args:
        judge: name of the reward.
        base: its scores of the base pictures.
        aligned: its scores of the aligned pictures, in the same order.
        resamples: bootstrap resamples; their seed is fixed, so equal scores give equal intervals.

    Raises:
        ValueError: fewer than two pairs have finite scores.
    """
    pairs = np.stack([np.asarray(base, dtype=float), np.asarray(aligned, dtype=float)])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    count = pairs.shape[1]
    if count < 2:
        raise ValueError(f"{judge}: {count} of {len(base)} pairs have finite scores; an interval takes two or more")
    differences = pairs[1] - pairs[0]
    picks = np.random.default_rng(0).integers(count, size=(resamples, count))
    low, high = np.percentile(differences[picks].mean(axis=1), [2.5, 97.5])
    wins = (differences > 0).mean() + 0.5 * (differences == 0).mean()
    return Comparison(
        judge, count, *map(float, (pairs[0].mean(), pairs[1].mean(), differences.mean(), low, high, wins))
    )


def compare_all(pictures: pa.Table) -> list[Comparison]:
    """Every judge in a table of `make_pictures`."""
    judges = [name.removeprefix("base.") for name in pictures.column_names if name.startswith("base.")]
    return [
        compare(judge, pictures.column(f"base.{judge}").to_pylist(), pictures.column(f"aligned.{judge}").to_pylist())
        for judge in judges
    ]


def as_table(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as text for a terminal."""
    width = max(len(c.judge) for c in comparisons)
    head = f"{'judge':<{width}}  {'base':>8}  {'aligned':>8}  {'difference [95 % interval]':>28}  {'wins':>5}"
    rows = [
        f"{c.judge:<{width}}  {c.base:8.3f}  {c.aligned:8.3f}  "
        f"{f'{c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]':>28}  {c.win_rate:5.0%}"
        for c in comparisons
    ]
    return "\n".join([head, *rows])

"""What an evaluation says in numbers: means, paired differences with intervals and win rates, by category too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sdo_ray.evaluation.compare import Paired, paired
from sdo_ray.evaluation.metrics import DISTANCE, PIXELS
from sdo_ray.evaluation.result import BASE, CANDIDATE, CHAMPION, Evaluation

PAIRS = ((CANDIDATE, BASE), (CANDIDATE, CHAMPION), (CHAMPION, BASE))
"""Which role is compared with which."""

NO_WINNER = (DISTANCE, PIXELS)
"""Metrics in which more is neither better nor worse."""


@dataclass(frozen=True)
class Line:
    """One metric over all images, or those of a category."""

    metric: str
    means: Mapping[str, float]
    """Role -> mean of its finite values, NaN without any."""
    pairs: Mapping[tuple[str, str], Paired]
    """(role, other role) -> role against the other; absent where fewer than two prompts have finite values."""


def roles_of(evaluation: Evaluation) -> list[str]:
    """The roles that there are, in the order base, candidate, champion."""
    return [role for role in (BASE, CANDIDATE, CHAMPION) if role in evaluation.models]


def categories_of(evaluation: Evaluation) -> list[tuple[str, int]]:
    """Categories with their numbers of rows, the largest first."""
    categories = Counter(name for name in evaluation.images["category"].to_pylist() if name is not None)
    return sorted(categories.items(), key=lambda item: (-item[1], item[0]))


def summarize(evaluation: Evaluation, category: str | None = None) -> list[Line]:
    """A line for each metric that every image has.

    Args:
        evaluation: the images with their scores.
        category: only of these prompts; None for all.
    """
    table, roles = evaluation.images, roles_of(evaluation)
    if category is not None:
        table = table.filter(pc.equal(table["category"], category))
    prompts = table["prompt"].to_pylist()
    lines = []
    for metric in evaluation.metrics:
        values = {role: _values(table, f"{role}.{metric}") for role in roles}
        lines.append(Line(metric, {role: _mean(values[role]) for role in roles}, _pairs(values, prompts)))
    return lines


def said_of_missing(evaluation: Evaluation) -> list[str]:
    """Of each model and metric: how many of its images have no finite value, which the numbers are silent about."""
    said = []
    for metric in evaluation.metrics:
        for role in roles_of(evaluation):
            values = _values(evaluation.images, f"{role}.{metric}")
            if missing := int(np.count_nonzero(~np.isfinite(values))):
                said.append(
                    f"{role}: {missing} of {len(values)} images have no finite {metric}; the numbers are of the others"
                )
    return said


def as_records(evaluation: Evaluation) -> list[dict[str, Any]]:
    """All lines as plain values: `metric`, `category` (None for all), `role`, `against`, and the fields of `Paired`."""
    return [
        {"metric": line.metric, "category": category, "role": role, "against": other, **asdict(pair)}
        for category in (None, *(name for name, _ in categories_of(evaluation)))
        for line in summarize(evaluation, category)
        for (role, other), pair in line.pairs.items()
    ]


def as_numbers(evaluation: Evaluation) -> dict[str, float]:
    """What MLflow keeps: `ROLE/METRIC/mean`, `ROLE/METRIC/difference_to_OTHER` with `_low` and `_high`,
    `ROLE/METRIC/wins_against_OTHER`, and `ROLE/METRIC` of whole sets."""
    numbers: dict[str, float] = {}
    for line in summarize(evaluation):
        numbers |= {f"{role}/{line.metric}/mean": mean for role, mean in line.means.items() if math.isfinite(mean)}
        for (role, other), pair in line.pairs.items():
            to = f"{role}/{line.metric}/difference_to_{other}"
            numbers |= {to: pair.difference, f"{to}_low": pair.low, f"{to}_high": pair.high}
            if line.metric not in NO_WINNER:
                numbers[f"{role}/{line.metric}/wins_against_{other}"] = pair.win_rate
    for name, values in evaluation.set_metrics.items():
        numbers |= {f"{role}/{name}": value for role, value in values.items()}
    return numbers


def as_text(evaluation: Evaluation) -> str:
    """The numbers over all images, for a terminal."""
    lines = summarize(evaluation)
    parts = [as_table(lines, role, other) for role, other in PAIRS[:2] if other in evaluation.models]
    width = max(map(len, evaluation.set_metrics), default=0)
    rows = [
        f"{name:<{width}}  " + "  ".join(f"{role} {value:.4g}" for role, value in values.items())
        for name, values in evaluation.set_metrics.items()
    ]
    return "\n\n".join([*parts, "\n".join(rows)])


def as_table(lines: Sequence[Line], role: str, other: str) -> str:
    """One model against another, for a terminal; the means are over the pairs."""
    width = max(len("metric"), *(len(line.metric) for line in lines))
    head = f"{'metric':<{width}}  {other:>9}  {role:>9}  {'difference [95 % interval]':>28}  {'wins':>5}"
    rows = []
    for line in lines:
        pair = line.pairs.get((role, other))
        before, after = (line.means[other], line.means[role]) if pair is None else (pair.before, pair.after)
        row = f"{line.metric:<{width}}  {before:9.3f}  {after:9.3f}"
        if pair is not None:
            interval = f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"
            wins = "" if line.metric in NO_WINNER else f"{pair.win_rate:.0%}"
            row += f"  {interval:>28}  {wins:>5}"
        rows.append(row.rstrip())
    return "\n".join([head, *rows])


def _values(table: pa.Table, column: str) -> np.ndarray:
    """A column as floats, nulls as NaN."""
    return table[column].to_numpy().astype(float)


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _pairs(values: Mapping[str, np.ndarray], prompts: Sequence[str]) -> dict[tuple[str, str], Paired]:
    pairs = {}
    for role, other in PAIRS:
        if role in values and other in values:
            finite = np.isfinite(values[role]) & np.isfinite(values[other])
            if len({prompt for prompt, counts in zip(prompts, finite, strict=True) if counts}) >= 2:
                pairs[role, other] = paired(values[other].tolist(), values[role].tolist(), prompts)
    return pairs

"""What is best of several things by several measures, all to be small (NSGA-II: Deb et al. 2002, sections III.A, B)."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, ...]


def dominates(a: Point, b: Point) -> bool:
    """Whether `a` is nowhere above `b` and somewhere below."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def ranks(points: Sequence[Point]) -> list[int]:
    """Of each point: 0 where none dominates it, 1 where none does once those are gone, and so on."""
    found, left, rank = [0] * len(points), set(range(len(points))), 0
    while left:
        best = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        for i in best:
            found[i] = rank
        left, rank = left - best, rank + 1
    return found


def crowding(points: Sequence[Point]) -> list[float]:
    """Of each point how far its neighbours are apart in every measure, as shares of its range, summed; the outermost
    are infinitely far."""
    found = [0.0] * len(points)
    for measure in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda i: points[i][measure])
        low, high = points[order[0]][measure], points[order[-1]][measure]
        found[order[0]] = found[order[-1]] = math.inf
        for before, i, after in zip(order, order[1:], order[2:], strict=False):
            if high > low:
                found[i] += (points[after][measure] - points[before][measure]) / (high - low)
    return found


def best(points: Sequence[Point], count: int) -> list[int]:
    """The places of `count` points, the best first: by rank, and within a rank the lonely ones."""
    by_rank, found = ranks(points), list[int]()
    for rank in range(max(by_rank, default=-1) + 1):
        places = [i for i, own in enumerate(by_rank) if own == rank]
        apart = crowding([points[i] for i in places])
        found += [place for _, place in sorted(zip(apart, places, strict=True), key=lambda pair: -pair[0])]
    return found[:count]

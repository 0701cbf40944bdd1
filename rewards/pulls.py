"""How hard rewards pull on images, over a batch, an update and a run. Imports no torch.

Notation
    s_r[b], g_r[b]   score of reward r for image b, and its image gradient after the cap
    n_r              sqrt( mean of |g_r[b]|^2 over the images that have one )
    d_r              standard deviation of s_r[b] over the images

n_r and d_r of a run are over all its images so far, and not below a share of the largest that an update has had: a
reward that is almost satisfied, whose gradients or spread vanish, is not blown up to the size of the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Normalize = Literal["gradients", "scores"]
"""What a weight is in units of: n_r or d_r."""


@dataclass(frozen=True)
class Pull:
    """Sums over images of one reward; they add up over batches."""

    images: float = 0.0
    """Valid images."""
    score: float = 0.0
    """Sum of s_r."""
    score_squares: float = 0.0
    """Sum of s_r^2."""
    pulling: float = 0.0
    """Valid images with a gradient other than zero."""
    squares: float = 0.0
    """Sum of |g_r|^2."""

    def __add__(self, other: Pull) -> Pull:
        return Pull(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def norm(self) -> float | None:
        """n_r; None if no image has a gradient."""
        return math.sqrt(self.squares / self.pulling) if self.pulling else None

    @property
    def deviation(self) -> float | None:
        """d_r; None of less than two images, or equal scores."""
        if self.images < 2:
            return None
        variance = self.score_squares / self.images - (self.score / self.images) ** 2
        # What is left of equal scores is rounding.
        return math.sqrt(variance) if variance > 1e-12 * self.score_squares / self.images else None

    def size(self, of: Normalize) -> float | None:
        """n_r or d_r."""
        return self.norm if of == "gradients" else self.deviation


@dataclass(frozen=True)
class Memory:
    """What a run knows of its rewards after some updates."""

    total: Mapping[str, Pull] = field(default_factory=dict)
    """Reward key -> sums over all images so far."""
    largest: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Reward key -> "gradients" and "scores" -> the largest n_r and d_r of an update."""

    def after(self, pulls: Mapping[str, Pull]) -> Memory:
        """With an update more.

        Args:
            pulls: reward key -> sums over the update's images.
        """
        kinds: tuple[Normalize, ...] = ("gradients", "scores")
        total = {key: self.total.get(key, Pull()) + pull for key, pull in pulls.items()}
        largest: dict[str, Mapping[str, float]] = {
            key: {of: max(self.largest.get(key, {}).get(of, 0.0), pull.size(of) or 0.0) for of in kinds}
            for key, pull in pulls.items()
        }
        return Memory({**self.total, **total}, {**self.largest, **largest})

    def size(self, key: str, of: Normalize, floor: float) -> float | None:
        """n_r or d_r of the run, at least `floor` times the largest; None if nothing is known of it yet."""
        if key not in self.total or (size := self.total[key].size(of)) is None:
            return None
        return max(size, floor * self.largest[key][of])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"total": {key: asdict(pull) for key, pull in self.total.items()}, "largest": dict(self.largest)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Memory:
        """The inverse of `to_json`."""
        return cls({key: Pull(**pull) for key, pull in data["total"].items()}, data["largest"])


def added(pulls: Iterable[Mapping[str, Pull]]) -> dict[str, Pull]:
    """By reward, over several batches."""
    total: dict[str, Pull] = {}
    for batch in pulls:
        for key, pull in batch.items():
            total[key] = total.get(key, Pull()) + pull
    return total

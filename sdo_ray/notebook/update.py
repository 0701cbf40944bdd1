"""What an update came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdo_ray.rollout.records import Contribution


@dataclass(frozen=True)
class Update:
    """One update."""

    number: int
    """From 0."""
    reward: float
    """Mean of the mixed reward; NaN where no sample counts."""
    scores: dict[str, float]
    """Reward key -> mean of its finite scores."""
    num_samples: int
    """That count."""
    num_skipped: int
    """With a score or gradient that is not finite."""
    grad_norm: float = 0.0
    """Of the mean gradient, before clipping; 0 where there is none."""

    @staticmethod
    def of(number: int, contributions: Sequence[Contribution]) -> Update:
        """Of an update's batches."""
        scores: dict[str, list[float]] = {}
        for contribution in contributions:
            for key, values in contribution.scores.items():
                scores.setdefault(key, []).extend(
                    value for value in values if value is not None and math.isfinite(value)
                )
        return Update(
            number,
            _mean([value for contribution in contributions for value in contribution.mixed]),
            {key: _mean(values) for key, values in scores.items()},
            sum(contribution.num_samples for contribution in contributions),
            sum(contribution.num_skipped for contribution in contributions),
        )

    def with_norm(self, norm: float) -> Update:
        """The same, with its gradient's norm."""
        return replace(self, grad_norm=norm)

    def __str__(self) -> str:
        scores = "  ".join(f"{key} {value:.4g}" for key, value in self.scores.items())
        skipped = f"  {self.num_skipped} skipped" if self.num_skipped else ""
        return f"update {self.number + 1}: reward {self.reward:.4g}  {scores}  gradient {self.grad_norm:.3g}{skipped}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan

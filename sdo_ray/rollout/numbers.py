"""What contributions report besides their gradient, by name."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

GROUP_NUMBERS = (
    "flat_share",
    "spread",
    "missing",
    "sign_agreement",
    "gradient_norm",
    "group_norm",
    "cosine",
    "log_ratio",
    "clipped",
    "masked",
    "kl",
    "deviation",
    "contrast",
    "anchor",
)
"""What `Contribution.groups` may have."""

DIVERGED = "what the policy samples, or the gradient through it, is not finite"
"""The `Contribution.failure` of a batch that has no sample left because of it."""


def means(numbers: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Of each name, over those that have it."""
    given = list(numbers)
    names = dict.fromkeys(name for one in given for name in one)
    return {name: statistics.fmean(one[name] for one in given if name in one) for name in names}

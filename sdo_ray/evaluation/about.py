"""What metrics say, for people."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rewards.spec import RewardSpec
from sdo_ray.evaluation.metrics import ABOUT


def describe(
    metrics: Iterable[str], rewards: Mapping[str, RewardSpec], trained_on: Collection[str] | None
) -> dict[str, dict[str, Any]]:
    """Metric -> `about`, a sentence or two; `trained_on`, whether the candidate was trained on it, None if unknown; and
    `heldout`, whether it is an evaluator that must never be trained on.

    Args:
        metrics: names of rewards, and of other metrics.
        rewards: what each of those is.
        trained_on: names of the rewards that the candidate was trained on, if that is known.
    """
    return {
        name: {"about": ABOUT[name], "trained_on": None, "heldout": False}
        if name in ABOUT
        else {
            "about": rewards[name].about,
            "trained_on": None if trained_on is None else name in trained_on,
            "heldout": rewards[name].heldout,
        }
        for name in metrics
    }

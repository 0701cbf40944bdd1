"""What metrics say, for people."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
from typing import Any

from rewards.registry import is_heldout, reward_class
from sdo_ray.evaluation.metrics import ABOUT


def describe(metrics: Iterable[str], trained_on: Collection[str] | None) -> dict[str, dict[str, Any]]:
    """Metric -> `about`, a sentence or two; `trained_on`, whether the candidate was trained on it, None if unknown; and
    `heldout`, whether it is an evaluator that must never be trained on.

    Args:
        metrics: names of rewards, and of other metrics.
        trained_on: names of the rewards that the candidate was trained on, if that is known.
    """
    return {
        name: {"about": ABOUT[name], "trained_on": None, "heldout": False}
        if name in ABOUT
        else {
            "about": _first_paragraph(name),
            "trained_on": None if trained_on is None else name in trained_on,
            "heldout": is_heldout(name),
        }
        for name in metrics
    }


def _first_paragraph(reward: str) -> str:
    """Of the class's docstring."""
    text = inspect.getdoc(reward_class(reward)) or ""
    return " ".join(text.split("\n\n")[0].split())

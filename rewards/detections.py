"""Are the objects there that a prompt asks for, as many, in their colours and places: GenEval's checks by any detector.

Ghosh et al., 2310.11513. Instead of the prompt, a term's `text` gives each image its checks, the JSON of a row of
GenEval's metadata:

    {"tag": "position", "include": [{"class": "bench", "count": 1},
                                    {"class": "dog", "count": 1, "color": "brown", "position": ["left of", 0]}],
     "exclude": [{"class": "cat", "count": 1}]}

A position is one to the objects of an earlier check, by its number.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from rewards.towers.one_by_one import score_each

MOST = 16
"""Objects of a class that count."""
SLACK = 0.1
"""Share of the sum of two objects' sizes by which their middles may differ without one being beside the other."""


class Found(NamedTuple):
    """An object that a detector sees."""

    label: str
    confidence: float
    """0 to 1."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom, in any unit."""
    colour: str | None = None
    """As the checks name it; None: it was not told."""


class Detections:
    """Share of a prompt's checks for objects that a detector finds met, from 0 to 1; it is given checks, not prompts.

    Args:
        detector: "package.module:name" of yours: a function, or a class that is made without arguments, of an image,
            uint8 [H, W, 3], that returns (label, confidence, (left, top, right, bottom)) of each object, with a colour
            as a fourth where it tells one.
        strict: whether an image scores 1 if all checks are met, and else 0, as in the benchmark.
        confidence: of objects that count.
        counting: the same of checks with the tag "counting".

    Raises:
        ValueError: there is no such detector.
    """

    differentiable = False
    licence = "Apache-2.0"

    def __init__(self, *, detector: str, strict: bool = False, confidence: float = 0.3, counting: float = 0.9) -> None:
        found = _named(detector)
        self._detect: Callable[[np.ndarray], Sequence[Any]] = found() if isinstance(found, type) else found
        self._strict, self._confidence, self._counting = strict, confidence, counting

    @classmethod
    def check_use(cls, prompts: Sequence[str], **options: Any) -> None:
        """Refuse a detector that there is not, and texts that are no checks."""
        if "detector" in options:
            _named(options["detector"])
        for text in prompts:
            _read(text)

    def __call__(self, images: Tensor, checks: list[str]) -> Tensor:
        """Scores, float32 [B], of images, [B, 3, H, W] in [0, 1]; NaN for a broken image.

        Raises:
            ValueError: a text is no checks.
        """
        return score_each(images, checks, self._score)

    def _score(self, pixels: np.ndarray, text: str) -> float:
        checks = _read(text)
        least = self._counting if checks.get("tag") == "counting" else self._confidence
        seen = [one for one in (Found(*each) for each in self._detect(pixels)) if one.confidence > least]
        met = met_checks(checks, sorted(seen, key=lambda one: -one.confidence))
        return float(all(met)) if self._strict else sum(met) / len(met)


def met_checks(checks: dict[str, Any], seen: Sequence[Found]) -> list[bool]:
    """Which of them are met, those that include before those that exclude.

    Args:
        checks: of one image.
        seen: its objects, the most confident first.
    """
    groups, met = list[list[Found]](), list[bool]()
    for check in checks.get("include", []):
        count = check.get("count", 1)
        group = _of(check, seen)[:count]
        ok = len(group) == count
        if ok and (colour := check.get("color")) is not None:
            ok = all(one.colour == colour for one in group)
        if ok and (position := check.get("position")) is not None:
            relation, other = position
            ok = bool(groups[other]) and all(relation in relations(*pair) for pair in product(group, groups[other]))
        groups.append(group)
        met.append(ok)
    return met + [len(_of(check, seen)) < check.get("count", 1) for check in checks.get("exclude", [])]


def relations(a: Found, b: Found) -> set[str]:
    """Where a is, seen from b: "left of", "right of", "above", "below"; of two next to one another two, or none."""
    first, second = (np.reshape(one.box, (2, 2)) for one in (a, b))
    offset = first.mean(0) - second.mean(0)
    slack = SLACK * (np.ptp(first, axis=0) + np.ptp(second, axis=0))
    beyond = np.sign(offset) * np.maximum(np.abs(offset) - slack, 0)
    if not beyond.any():
        return set()
    x, y = beyond / np.linalg.norm(offset)
    told = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in told.items() if holds}


def _of(check: dict[str, Any], seen: Sequence[Found]) -> list[Found]:
    return [one for one in seen if one.label == check["class"]][:MOST]


def _read(text: str) -> dict[str, Any]:
    """The checks of a text, whose order and numbers can be.

    Raises:
        ValueError: it has none.
    """
    try:
        checks = json.loads(text)
        include = checks.get("include", [])
        objects = [*include, *checks.get("exclude", [])]
        positions = [(number, one["position"]) for number, one in enumerate(include) if one.get("position") is not None]
        fits = all(isinstance(one["class"], str) and one.get("count", 1) >= 1 for one in objects)
        fits = fits and all(0 <= other < number for number, (_, other) in positions)
    except (ValueError, AttributeError, KeyError, TypeError):
        objects, fits = [], False
    if not objects or not fits:
        raise ValueError(
            f"{text[:80]!r} are no checks, such as {json.dumps({'include': [{'class': 'dog', 'count': 2}]})}; give the "
            "term the column that has them as its `text`"
        )
    return dict(checks)


def _named(path: str) -> Any:
    module, colon, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name) if colon else None
    except (ImportError, AttributeError) as error:
        raise ValueError(f"option 'detector': {path!r} cannot be had: {error}") from None
    if not callable(found):
        raise ValueError(f"option 'detector': {path!r} must be 'package.module:name' of a function or class")
    return found

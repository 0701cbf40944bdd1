"""A detector of bright and dark halves, for GenEval-like checks."""

from typing import Any

import numpy as np


def halves(pixels: np.ndarray) -> list[tuple[Any, ...]]:
    """The left and the right half of an image, uint8 [H, W, 3], as "light" or "dark", by its mean."""
    height, width = pixels.shape[:2]
    found: list[tuple[Any, ...]] = []
    for left, right in ((0, width // 2), (width // 2, width)):
        mean = pixels[:, left:right].mean() / 255
        found.append(("light" if mean > 0.5 else "dark", abs(mean - 0.5) * 2, (left, 0, right, height), "grey"))
    return found

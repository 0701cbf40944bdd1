"""Pictures side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image


def grid(pictures: Sequence[Image.Image], columns: int | None = None, gap: int = 4) -> Image.Image:
    """Pictures of one size in rows on white.

    Args:
        pictures: one or more.
        columns: pictures in a row; by default the smallest square that holds all.
        gap: pixels between two.
    """
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture.convert("RGB"), (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet

"""Images side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image


def grid(images: Sequence[Image.Image], columns: int | None = None, gap: int = 4) -> Image.Image:
    """Images of one size in rows on white.

    Args:
        images: one or more.
        columns: images in a row; by default the smallest square that holds all.
        gap: pixels between two.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image.convert("RGB"), (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet

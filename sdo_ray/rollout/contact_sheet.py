"""Images side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image


def grid(images: Sequence[Image.Image], columns: int | None = None, gap: int = 4) -> Image.Image:
    """Images of one size in rows on white.

    Args:
        images: one or more.
        columns: images in a row; by default as many as make the sheet about square.
        gap: pixels between two.
    """
    width, height = images[0].size
    columns = columns or min(len(images), math.ceil(math.sqrt(len(images) * height / width)))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image.convert("RGB"), (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet

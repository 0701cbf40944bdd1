"""The before/after sheet."""

from __future__ import annotations

import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from sdo_ray.evaluation.images import open_image


def before_after(images: pa.Table, count: int = 16, columns: int = 8, cell: int = 128) -> Image.Image:
    """The first prompts' images, base above aligned, with the prompt below.

    Args:
        images: table of `make_images`.
        count: prompts shown.
        columns: pairs in a row.
        cell: pixels of one image's side.
    """
    rows = images.slice(0, count).select(["prompt", "base", "aligned"]).to_pylist()
    margin, caption, left = 6, 20, 64
    height = 2 * cell + caption + 2 * margin
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (left + min(columns, len(rows)) * (cell + margin), lines * height + margin), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, row in enumerate(rows):
        x, y = left + i % columns * (cell + margin), margin + i // columns * height
        for j, which in enumerate(("base", "aligned")):
            image = open_image(row[which]).resize((cell, cell), Image.Resampling.LANCZOS)
            sheet.paste(image, (x, y + j * cell))
            if i % columns == 0:
                draw.text((4, y + j * cell + cell // 2 - 8), ("before", "after")[j], "black", font=font)
        draw.text((x + 2, y + 2 * cell + 2), _fit(draw, row["prompt"], cell - 4, font), "black", font=font)
    return sheet


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while draw.textlength(text, font=font) > width:
        text = text.rstrip("…")[:-1] + "…"
    return text

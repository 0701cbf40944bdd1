"""The before/after contact sheet."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from sdo_ray.media.picture import open_image


def before_after(
    captions: Sequence[str],
    before: Sequence[bytes],
    after: Sequence[bytes],
    *,
    count: int = 16,
    columns: int = 8,
    cell: int = 128,
) -> Image.Image:
    """The first pairs of images, before above after, each pair with its caption below.

    Args:
        captions: any text, such as prompts; what does not fit in one line is cut off.
        before: the images' files.
        after: as many.
        count: pairs shown.
        columns: pairs in a row, of square images; as many fewer as they are wide.
        cell: pixels of one image's height.
    """
    pairs = list(zip(captions, before, after, strict=True))[:count]
    margin, caption, left = 6, 20, 64
    height = 2 * cell + caption + 2 * margin
    first = open_image(pairs[0][1])
    width = max(cell, round(cell * first.width / first.height))
    columns = max(1, columns * cell // width)
    lines = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (left + min(columns, len(pairs)) * (width + margin), lines * height + margin), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (text, *images) in enumerate(pairs):
        x, y = left + i % columns * (width + margin), margin + i // columns * height
        for j, encoded in enumerate(images):
            image = open_image(encoded).resize((width, cell), Image.Resampling.LANCZOS)
            sheet.paste(image, (x, y + j * cell))
            if i % columns == 0:
                draw.text((4, y + j * cell + cell // 2 - 8), ("before", "after")[j], "black", font=font)
        draw.text((x + 2, y + 2 * cell + 2), _fit(draw, text, width - 4, font), "black", font=font)
    return sheet


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """One line of at most `width` pixels: white space as single spaces, and … for what is cut off."""
    # A page of text takes long to measure, and a letter takes a pixel or more.
    line = " ".join(text.split())[:width]
    if draw.textlength(line, font=font) <= width:
        return line
    fits, too_long = 0, len(line)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if draw.textlength(line[:middle].rstrip() + "…", font=font) <= width:
            fits = middle
        else:
            too_long = middle
    return line[:fits].rstrip() + "…"

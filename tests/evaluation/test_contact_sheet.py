"""The before/after sheet."""

import io

import pyarrow as pa
from PIL import Image

from sdo_ray.evaluation.contact_sheet import before_after


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def test_base_above_aligned_in_reading_order() -> None:
    colours = [("red", "lime"), ("blue", "yellow"), ("black", "cyan")]
    images = pa.table(
        {
            "prompt": ["a", "a prompt that is much too long for the width of one image " * 3, "c"],
            "base": [png(base) for base, _ in colours],
            "aligned": [png(aligned) for _, aligned in colours],
        }
    )
    sheet = before_after(images, columns=2, cell=32)
    column, line = 32 + 6, 2 * 32 + 20 + 2 * 6
    assert sheet.size == (64 + 2 * column, 2 * line + 6)
    for i, (base, aligned) in enumerate(colours):
        x, y = 64 + i % 2 * column + 16, 6 + i // 2 * line + 16
        assert sheet.getpixel((x, y)) == Image.new("RGB", (1, 1), base).getpixel((0, 0))
        assert sheet.getpixel((x, y + 32)) == Image.new("RGB", (1, 1), aligned).getpixel((0, 0))
    # The long caption ends within its column, before the next line of images.
    assert sheet.crop((64 + 2 * column - 4, 70, 64 + 2 * column, line)).getextrema() == ((255, 255),) * 3


def test_no_more_than_asked_for() -> None:
    images = pa.table({"prompt": ["a"] * 5, "base": [png("red")] * 5, "aligned": [png("red")] * 5})
    assert before_after(images, count=2, columns=8, cell=16).size == (64 + 2 * 22, 2 * 16 + 20 + 12 + 6)

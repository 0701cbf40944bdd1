"""The before/after contact sheet."""

import io
import time

import pytest
from PIL import Image, ImageDraw, ImageFont

from sdo_ray.evaluation.contact_sheet import _fit, before_after


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def fit(text: str, width: int = 124) -> str:
    draw, font = ImageDraw.Draw(Image.new("RGB", (1, 1))), ImageFont.load_default(13)
    line = _fit(draw, text, width, font)
    assert draw.textlength(line, font=font) <= width
    return line


def test_before_above_after_in_reading_order() -> None:
    colours = [("red", "lime"), ("blue", "yellow"), ("black", "cyan")]
    sheet = before_after(
        ["a", "a prompt that is much too long for the width of one image " * 3, "c"],
        [png(before) for before, _ in colours],
        [png(after) for _, after in colours],
        columns=2,
        cell=32,
    )
    column, line = 32 + 6, 2 * 32 + 20 + 2 * 6
    assert sheet.size == (64 + 2 * column, 2 * line + 6)
    for i, (before, after) in enumerate(colours):
        x, y = 64 + i % 2 * column + 16, 6 + i // 2 * line + 16
        assert sheet.getpixel((x, y)) == Image.new("RGB", (1, 1), before).getpixel((0, 0))
        assert sheet.getpixel((x, y + 32)) == Image.new("RGB", (1, 1), after).getpixel((0, 0))
    # The long caption ends within its column, before the next line of images.
    assert sheet.crop((64 + 2 * column - 4, 70, 64 + 2 * column, line)).getextrema() == ((255, 255),) * 3


def test_no_more_than_asked_for() -> None:
    sheet = before_after(["a"] * 5, [png("red")] * 5, [png("red")] * 5, count=2, columns=8, cell=16)
    assert sheet.size == (64 + 2 * 22, 2 * 16 + 20 + 12 + 6)


def test_a_caption_is_one_line() -> None:
    assert fit("red\napple") == "red apple"
    assert fit("  red\t\u2028 apple \r\n") == "red apple"
    assert fit("") == fit(" \n ") == ""


def test_a_caption_is_cut_where_no_more_fits() -> None:
    cut = fit("a prompt that is much too long for the width of one image")
    assert cut.endswith("…")
    kept = cut.removesuffix("…")
    text = "a prompt that is much too long for the width of one image"
    assert text.startswith(kept)
    draw, font = ImageDraw.Draw(Image.new("RGB", (1, 1))), ImageFont.load_default(13)
    assert draw.textlength(text[: len(kept) + 2] + "…", font=font) > 124


@pytest.mark.parametrize(
    "text",
    ["x" * 100_000, "🍎 " * 5_000, "\u202eتفاحة " * 5_000, "e\u0301" * 10_000, "\x00\x1b[31m" * 1_000, "\n" * 9_000],
)
def test_any_text_is_a_caption_in_no_time(text: str) -> None:
    begin = time.perf_counter()
    before_after([text] * 16, [png("red")] * 16, [png("blue")] * 16)
    assert time.perf_counter() - begin < 5

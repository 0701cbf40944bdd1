"""Numbers as people read them."""

import math

import pytest

from sdo_ray.evaluation.report.numbers import number, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.12345, "0.123"),
        (-3.14159, "−3.142"),
        (12.345, "12.35"),
        (-123.45, "−123.5"),
        (12345.6, "12,346"),
        (math.nan, "–"),
        (math.inf, "–"),
        (None, "–"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_signed() -> None:
    assert [signed(value) for value in (1.0, 0.0, -1.0, None)] == ["+1.000", "0.000", "−1.000", "–"]

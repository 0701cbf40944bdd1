"""Numbers as people read them."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """About four digits; a dash for what is not a number."""
    if value is None or not math.isfinite(value):
        return "–"
    digits = next((d for limit, d in ((1000, 0), (100, 1), (10, 2)) if abs(value) >= limit), 3)
    return f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float | None) -> str:
    """The same with a sign."""
    text = number(value)
    return f"+{text}" if value is not None and math.isfinite(value) and value > 0 else text

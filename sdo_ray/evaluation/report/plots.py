"""Plots as inline SVG, coloured by the page's style sheet through classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape

from sdo_ray.evaluation.report.numbers import number, signed

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 10, 22
"""Size and margins of a plot in its own units."""

BINS = 24


def interval_plot(difference: float, low: float, high: float, says: str) -> Markup:
    """A difference with its interval; the line in the middle is zero.

    Args:
        difference: the estimate.
        low: lower end of the interval.
        high: upper end.
        says: class of the mark: higher, lower, unclear or none.
    """
    width, height, reach = 120, 16, max(abs(low), abs(high), 1e-12) * 1.1

    def x(value: float) -> str:
        return f"{width / 2 * (1 + value / reach):.1f}"

    middle = height // 2
    return Markup(
        f'<svg class="interval {escape(says)}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{signed(difference)}, 95 % interval {signed(low)} to {signed(high)}">'
        f'<line class="zero" x1="{width // 2}" x2="{width // 2}" y1="1" y2="{height - 1}"/>'
        f'<line class="range" x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="mark" cx="{x(difference)}" cy="{middle}" r="3.5"/></svg>'
    )


def histogram_plot(metric: str, values: Mapping[str, np.ndarray]) -> Markup:
    """How a metric's values are spread, a shape for each role, with dashed lines at the means.

    Args:
        metric: its name.
        values: role -> values.
    """
    finite = {role: column[np.isfinite(column)] for role, column in values.items()}
    everything = np.concatenate(list(finite.values()))
    if not len(everything):
        return _frame(f"{metric}: no finite values", "", [])
    low, high = float(everything.min()), float(everything.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    counts = {role: np.histogram(column, edges)[0] / max(1, len(column)) for role, column in finite.items()}
    most = max(float(count.max()) for count in counts.values())
    shapes, said = [], []
    for role, count in counts.items():
        if not len(finite[role]):
            continue
        steps = [
            (at, y) for i, share in enumerate(count) for at in edges[i : i + 2] for y in [_y(float(share), 0, most)]
        ]
        line = " ".join(f"{_x(float(at), low, high):.1f},{y:.1f}" for at, y in steps)
        floor = _y(0, 0, most)
        shapes.append(
            f'<polygon class="area {escape(role)}" points="{_x(low, low, high):.1f},{floor:.1f} {line} '
            f'{_x(high, low, high):.1f},{floor:.1f}"/>'
        )
        mean = float(finite[role].mean())
        at = f"{_x(mean, low, high):.1f}"
        shapes.append(f'<line class="mean {escape(role)}" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        said.append(f"{role} mean {number(mean)}")
    return _frame(f"{metric}: {', '.join(said)}", "".join(shapes), _ticks(low, high))


def curve_plot(name: str, curve: Sequence[Sequence[float]]) -> Markup:
    """Mean over the samples of each update, in a band of one standard deviation.

    Args:
        name: of the reward.
        curve: (update, mean, standard deviation) in order.
    """
    updates, means, deviations = (np.asarray(part, dtype=float) for part in zip(*curve, strict=True))
    low, high = float((means - deviations).min()), float((means + deviations).max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    first, last = float(updates[0]), float(max(updates[-1], updates[0] + 1))

    def points(values: np.ndarray, order: int = 1) -> str:
        pairs = list(zip(updates, values, strict=True))[::order]
        return " ".join(f"{_x(u, first, last):.1f},{_y(v, low, high):.1f}" for u, v in pairs)

    shapes = (
        f'<polygon class="area band candidate" points="{points(means + deviations)} {points(means - deviations, -1)}"/>'
        f'<polyline class="curve candidate" points="{points(means)}"/>'
        f'<text class="tick" x="{LEFT}" y="{TOP + 2}">{number(high)}</text>'
        f'<text class="tick" x="{LEFT}" y="{HEIGHT - BOTTOM - 4}">{number(low)}</text>'
    )
    if len(curve) == 1:  # a line of one point is not seen
        x, y = points(means).split(",")
        shapes += f'<circle class="dot candidate" cx="{x}" cy="{y}" r="3"/>'
    said = f"{name} over {int(updates[-1])} updates: from {number(float(means[0]))} to {number(float(means[-1]))}"
    ticks = [(first, f"update {int(first)}", "start"), (last, f"{int(last)}", "end")][: len(curve)]
    return _frame(said, shapes, [(_x(at, first, last), text, anchor) for at, text, anchor in ticks])


def _ticks(low: float, high: float) -> list[tuple[float, str, str]]:
    """Both ends and, where it lies well between them, zero or the middle: (x, text, anchor)."""
    middle = 0.0 if low + 0.2 * (high - low) < 0 < high - 0.2 * (high - low) else (low + high) / 2
    return [
        (_x(at, low, high), "0" if at == 0 else number(at), anchor)
        for at, anchor in ((low, "start"), (middle, "middle"), (high, "end"))
    ]


def _frame(said: str, shapes: str, ticks: Sequence[tuple[float, str, str]]) -> Markup:
    """The plot with its axis; `said` is for those who do not see it."""
    floor = HEIGHT - BOTTOM
    texts = "".join(
        f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{escape(text)}</text>'
        for x, text, anchor in ticks
    )
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">'
        f'{shapes}<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>{texts}</svg>'
    )


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.0
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

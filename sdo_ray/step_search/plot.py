"""The search as an image."""

from __future__ import annotations

import io
from collections.abc import Sequence

from sdo_ray.step_search.evolution import Measured, front
from sdo_ray.step_search.found import Found

SMALLEST = 1e-4
"""Errors below it are drawn there, on the logarithmic scale."""


def plot(known: Sequence[Measured], found: Sequence[Found], title: str, what: str) -> bytes:
    """A PNG: every candidate by cost and error, the front of the search, and what was measured at the end.

    Args:
        known: all that the search measured.
        found: what was measured anew.
        title: above it.
        what: of the errors.
    """
    # The object interface: pyplot would look for a display, and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title)
    points = axes.scatter(
        [one.cost for one in known],
        [max(one.error, SMALLEST) for one in known],
        c=[one.generation for one in known],
        s=14,
        cmap="viridis_r",
        label="candidates, by generation",
    )
    figure.colorbar(points, label="generation", ticks=sorted({one.generation for one in known}))
    edge = front(known)
    axes.plot([one.cost for one in edge], [max(one.error, SMALLEST) for one in edge], color="#08519c", label="front")
    for searched, marker, color, label in (
        (True, "D", "#d94801", "found, on other prompts, timed"),
        (False, "x", "#5a5a5a", "every n-th step, on other prompts, timed"),
    ):
        some = [one for one in found if one.searched == searched]
        axes.scatter(
            [one.cost for one in some],
            [max(one.error, SMALLEST) for one in some],
            marker=marker,
            color=color,
            s=30,
            label=label,
        )
    axes.set_yscale("log")
    axes.set_xlabel("time / time of exact steps")
    axes.set_ylabel(what)
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()

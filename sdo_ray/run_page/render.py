"""From a run's reports to its page: static HTML that needs nothing from anywhere and runs nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from sdo_ray.evaluation.report.embedding import data_uri, packaged, policy_hash
from sdo_ray.evaluation.report.numbers import number
from sdo_ray.evaluation.report.plots import curve_plot
from sdo_ray.secrets import redact
from sdo_ray.training.records import Spread, UpdateReport

SHOWN, SIZE = 12, 512
"""Previews on the page, and their longest side in pixels; all of them are in the run's directory."""
POINTS = 400
"""Updates drawn of a curve, evenly spaced."""
NOTES = 100

Curve = list[tuple[int, float, float]]


def render(
    name: str,
    updates: int,
    reports: Sequence[UpdateReport],
    previews: Mapping[int, bytes],
    notes: Sequence[tuple[int, str]],
) -> str:
    """The page as HTML.

    Args:
        name: of the run.
        updates: of the whole run.
        reports: of the updates made, in order.
        previews: update, from 1 -> PNG.
        notes: (update, from 1; what happened then, in words).
    """
    css = packaged("page.css")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        name=name,
        css=Markup(css),
        css_hash=policy_hash(css),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        done=reports[-1].update + 1 if reports else 0,
        updates=updates,
        last=reports[-1] if reports else None,
        curves=[(label, curve_plot(label, _thinned(curve))) for label, curve in _curves(reports) if curve],
        previews=[(update, data_uri(previews[update], SIZE)) for update in _chosen(sorted(previews))],
        notes=[(update, redact(" ".join(what.split()))[:400]) for update, what in notes[-NOTES:]],
    )


def _curves(reports: Sequence[UpdateReport]) -> Iterator[tuple[str, Curve]]:
    """Label -> (update from 1, mean, deviation) where there is one."""
    yield "reward", _spreads((report.update, report.reward) for report in reports)
    names = dict.fromkeys(name for report in reports for name in report.scores)
    for name in names:
        yield name, _spreads((report.update, report.scores[name]) for report in reports if name in report.scores)
    parts = [(report.update + 1, _parts(report)) for report in reports]
    for name in dict.fromkeys(name for _, found in parts for name in found):
        yield name, [(update, found[name], 0.0) for update, found in parts if name in found]
    yield "gradient norm", [(r.update + 1, r.gradient_norm, 0.0) for r in reports if math.isfinite(r.gradient_norm)]
    yield "samples skipped", [(r.update + 1, float(r.num_skipped), 0.0) for r in reports]
    yield "seconds", [(r.update + 1, r.seconds["update"], 0.0) for r in reports if "update" in r.seconds]


def _parts(report: UpdateReport) -> dict[str, float]:
    """What rewards are to one another, where there are several, and what groups are worth."""
    found = {f"groups: {name.replace('_', ' ')}": value for name, value in report.groups.items()}
    if len(report.pulls) > 1 or "group_norm" in report.groups:
        found |= {f"pull of {name}": pull.norm for name, pull in report.pulls.items() if pull.norm is not None}
    return found | {f"cosine of {pair}": cosine for pair, cosine in report.cosines.items()}


def _spreads(values: Iterator[tuple[int, Spread]]) -> Curve:
    return [(update + 1, s.mean, s.std or 0.0) for update, s in values if s.mean is not None]


def _thinned(curve: Curve) -> Curve:
    every = math.ceil(len(curve) / POINTS)
    return curve if every <= 1 else [*curve[:-1:every], curve[-1]]


def _chosen(updates: list[int]) -> list[int]:
    """The first and the last, and others evenly between; the newest first."""
    if len(updates) > SHOWN:
        updates = [updates[round(i * (len(updates) - 1) / (SHOWN - 1))] for i in range(SHOWN)]
    return updates[::-1]

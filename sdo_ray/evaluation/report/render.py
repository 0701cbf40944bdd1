"""From an evaluation to its page.

The template escapes everything that is put into it, and the page's content security policy lets no script or style run
but its own, known by their hashes, and nothing be fetched: a prompt is text whatever it contains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from sdo_ray.evaluation.intervals import FEWEST
from sdo_ray.evaluation.metrics import ABOUT, FRECHET_BASE, FRECHET_REFERENCE
from sdo_ray.evaluation.report.embedding import data_uri, packaged, policy_hash, sound_uri
from sdo_ray.evaluation.report.numbers import number, signed
from sdo_ray.evaluation.report.plots import curve_plot, histogram_plot, interval_plot
from sdo_ray.evaluation.result import BASE, CANDIDATE, CHAMPION, Evaluation
from sdo_ray.evaluation.settings import ReportSettings
from sdo_ray.evaluation.summary import NO_WINNER, Line, categories_of, roles_of, summarize

REPORT = "report.html"
"""The file."""

MAX_POINTS = 1000
"""Prompts in the scatter plot."""


def render_report(evaluation: Evaluation, settings: ReportSettings) -> str:
    """The page as HTML."""
    parts = {name: packaged(name) for name in ("page.html", "page.css", "page.js")}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "signed": signed}
    page = environment.from_string(parts["page.html"])
    roles, shown = roles_of(evaluation), min(settings.rows, len(evaluation.images))
    return page.render(
        css=Markup(parts["page.css"]),
        js=Markup(parts["page.js"]),
        css_hash=policy_hash(parts["page.css"]),
        js_hash=policy_hash(parts["page.js"]),
        evaluation=evaluation,
        details=evaluation.details,
        roles=roles,
        others=[other for other in (BASE, CHAMPION) if other in roles],
        metrics=[{"name": name, **_told(evaluation, name)} for name in evaluation.metrics],
        chosen=_first_evaluator(evaluation),
        headlines=list(_headlines(evaluation)),
        tables=_tables(evaluation),
        categories=categories_of(evaluation),
        sets=[{"name": name, **_told(evaluation, name)} for name in evaluation.set_metrics],
        frechet_note=_frechet_note(evaluation),
        cards=_cards(evaluation, shown, settings.image_size),
        num_pairs=len(evaluation.images),
        fewest=FEWEST,
        num_prompts=len(set(evaluation.images["prompt"].to_pylist())),
        histograms=[(name, histogram_plot(name, _columns(evaluation, name))) for name in evaluation.metrics],
        curves=[(name, curve_plot(name, curve)) for name, curve in evaluation.details.get("history", {}).items()],
        data=_data(evaluation, shown),
        num_points=min(MAX_POINTS, len(set(evaluation.images["prompt"].to_pylist()))),
        settings=yaml.safe_dump(evaluation.details.get("settings", {}), sort_keys=False, allow_unicode=True),
    )


def _told(evaluation: Evaluation, metric: str) -> dict[str, Any]:
    told = evaluation.details.get("metrics", {}).get(metric, {})
    return {
        "about": told.get("about", ABOUT.get(metric, "")),
        "trained_on": told.get("trained_on"),
    }


def _first_evaluator(evaluation: Evaluation) -> str:
    """The metric that images show at first: one that must never be trained on, if there is one, else a reward."""
    told = evaluation.details.get("metrics", {})
    evaluators = [name for name in evaluation.metrics if told.get(name, {}).get("heldout")]
    rewards = [name for name in evaluation.metrics if name not in ABOUT]
    return (evaluators or rewards or list(evaluation.metrics))[0]


def _headlines(evaluation: Evaluation) -> Iterator[str]:
    """Sentences that count rewards by what their intervals say."""
    lines = [line for line in summarize(evaluation) if line.metric not in ABOUT]
    groups = {True: "trained on", False: "not trained on", None: ""}
    for other in (BASE, CHAMPION):
        for trained_on, group in groups.items():
            members = [line for line in lines if _told(evaluation, line.metric)["trained_on"] is trained_on]
            pairs = [line.pairs[CANDIDATE, other] for line in members if (CANDIDATE, other) in line.pairs]
            if pairs:
                higher, lower = (sum(p.says == says for p in pairs) for says in ("higher", "lower"))
                counts = {"higher": higher, "lower": lower, "no clear difference": len(pairs) - higher - lower}
                said = ", ".join(f"{what} on {count}" for what, count in counts.items() if count)
                rewards = " ".join((f"{len(pairs)} reward{'s' * (len(pairs) > 1)}", group)).rstrip()
                yield f"{rewards}, candidate against {other}: {said}."


def _tables(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The numbers over all prompts, and of each category."""
    whole = (None, len(evaluation.images))
    return [
        {
            "category": category,
            "count": count,
            "rows": [_row(evaluation, line) for line in summarize(evaluation, category)],
        }
        for category, count in (whole, *categories_of(evaluation))
    ]


def _row(evaluation: Evaluation, line: Line) -> dict[str, Any]:
    pairs = []
    for other in (BASE, CHAMPION):
        pair = line.pairs.get((CANDIDATE, other))
        if other not in evaluation.models:
            continue
        says = "none" if pair is None or line.metric in NO_WINNER else pair.says
        plot = None if pair is None else interval_plot(pair.difference, pair.low, pair.high, says)
        pairs.append({"other": other, "pair": pair, "says": says, "plot": plot})
    return {
        "metric": line.metric,
        **_told(evaluation, line.metric),
        "means": line.means,
        "pairs": pairs,
        "has_winner": line.metric not in NO_WINNER,
    }


def _frechet_note(evaluation: Evaluation) -> str:
    """What to know before a Frechet distance is read, with its numbers."""
    if not {FRECHET_BASE, FRECHET_REFERENCE} & evaluation.set_metrics.keys():
        return ""
    note = (
        f"Fréchet distances from {len(evaluation.images)} images of each model are biased upwards, the more the "
        "fewer images; compare only distances from equal numbers."
    )
    for role, chance in evaluation.details.get("frechet_to_base_by_chance", {}).items():
        note += f" A {FRECHET_BASE} of the {role} below {number(chance)} may be chance (pairs swapped, 95 %)."
    halves = evaluation.details.get("frechet_between_halves_of_base")
    if halves is not None and FRECHET_REFERENCE in evaluation.set_metrics:
        note += f" Two halves of the base's own images are {number(halves)} apart, for {FRECHET_REFERENCE}."
    if count := evaluation.details.get("reference_images"):
        note += f" The reference has {count} images."
    return note


def _cards(evaluation: Evaluation, shown: int, size: int) -> list[dict[str, Any]]:
    roles = roles_of(evaluation)
    return [
        {
            "index": row["index"],
            "prompt": row["prompt"],
            "category": row["category"],
            "images": {role: data_uri(_shown(row, role), size) for role in roles},
            "sounds": {role: sound_uri(row.get(f"{role}.media")) for role in roles},
        }
        for row in evaluation.images.slice(0, shown).to_pylist()
    ]


def _shown(row: Mapping[str, Any], role: str) -> bytes:
    """A video as it plays, of anything else its picture."""
    media = row.get(f"{role}.media")
    return media if media is not None and media[8:12] == b"WEBP" else row[f"{role}.picture"]


def _data(evaluation: Evaluation, shown: int) -> dict[str, Any]:
    """What the script sorts and draws."""
    roles, metrics = roles_of(evaluation), evaluation.metrics
    table = evaluation.images
    prompts, categories = table["prompt"].to_pylist(), table["category"].to_pylist()
    values = {role: np.stack([_column(evaluation, role, name) for name in metrics], axis=1) for role in roles}
    points: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        if prompt in points or len(points) < MAX_POINTS:
            points.setdefault(prompt, []).append(row)
    return {
        "roles": roles,
        "metrics": list(metrics),
        "rows": [{role: _rounded(values[role][row]) for role in roles} for row in range(shown)],
        "points": [
            {
                "prompt": prompt,
                "category": categories[rows[0]],
                "values": {role: _rounded(values[role][rows].mean(axis=0)) for role in roles},
            }
            for prompt, rows in points.items()
        ],
    }


def _columns(evaluation: Evaluation, metric: str) -> Mapping[str, np.ndarray]:
    """Role -> values; the base's distance from itself says nothing."""
    roles = [role for role in roles_of(evaluation) if role != BASE or metric not in NO_WINNER]
    return {role: _column(evaluation, role, metric) for role in roles}


def _column(evaluation: Evaluation, role: str, metric: str) -> np.ndarray:
    column: np.ndarray = evaluation.images[f"{role}.{metric}"].to_numpy().astype(float)
    return column


def _rounded(values: Sequence[float] | np.ndarray) -> list[float | None]:
    """Enough digits to show and sort by; JSON has no NaN."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]

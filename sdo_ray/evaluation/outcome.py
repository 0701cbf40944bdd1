"""What a finished alignment run leaves: its closing comparison, images, and where each thing is.

The comparison is an `Evaluation` of two models, the base and, as the candidate, the aligned model; its files call that
one `aligned`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from sdo_ray.evaluation.compare import Paired
from sdo_ray.evaluation.contact_sheet import before_after
from sdo_ray.evaluation.result import BASE, CANDIDATE, Evaluation
from sdo_ray.evaluation.summary import Line, as_table
from sdo_ray.storage import RunDirectory

FILE, SHEET, IMAGES = "outcome.json", "before_after.png", "heldout.parquet"

ALIGNED = "aligned"
"""What the candidate is called in these files."""


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    lines: tuple[Line, ...]
    """Every evaluator, the aligned model as candidate against the base, on held-out prompts."""
    places: Mapping[str, str]
    """In words -> path, URI or command."""
    updates: int | None = None
    """How many the run was asked for; None of a run of an earlier version."""

    def __str__(self) -> str:
        width = max(len(what) for what in self.places)
        where = "\n".join(f"{what:<{width}}  {place}" for what, place in self.places.items())
        return f"{as_table(self.lines, CANDIDATE, BASE)}\n\n{where}"


def write_images(directory: Path, comparison: Evaluation) -> list[Path]:
    """Write the held-out images with their scores, and the before/after sheet; returns the two files.

    The table has a row a prompt: `index`, `prompt`, `base` and `aligned` PNG, and each one's scores, `base.NAME`.
    """
    sheet, file, images = directory / SHEET, directory / IMAGES, comparison.images
    columns = ("prompt", f"{BASE}.picture", f"{CANDIDATE}.picture")
    before_after(*(images[name].to_pylist() for name in columns)).save(sheet)
    table = images.drop_columns("category")
    table = table.rename_columns([_column(name) for name in table.column_names])
    pyarrow.parquet.write_table(table, file, compression="zstd")
    return [sheet, file]


def as_metrics(lines: Sequence[Line]) -> dict[str, float]:
    """What MLflow keeps: `heldout/EVALUATOR/base`, `/aligned`, and `/low` and `/high` of the difference."""
    return {
        f"heldout/{record['evaluator']}/{part}": record[part]
        for record in map(_record, lines)
        for part in (BASE, ALIGNED, "low", "high")
        if record.get(part) is not None
    }


def write_outcome(run: RunDirectory, outcome: Outcome) -> None:
    """Mark the run as complete."""
    data: dict[str, Any] = {"comparisons": [_record(line) for line in outcome.lines], "places": dict(outcome.places)}
    data |= {} if outcome.updates is None else {"updates": outcome.updates}
    run.write(FILE, json.dumps(data, indent=2).encode())


def read_outcome(run: RunDirectory) -> Outcome | None:
    """The outcome of a complete run, None of any other."""
    data = run.read_json(FILE, lost="the closing comparison, which is made again")
    if data is None:
        return None
    return Outcome(tuple(map(_line, data["comparisons"])), data["places"], data.get("updates"))


def _column(name: str) -> str:
    role, dot, metric = name.partition(".")
    role = ALIGNED if role == CANDIDATE else role
    return role if metric == "picture" else role + dot + metric


def _record(line: Line) -> dict[str, Any]:
    """A line as JSON; without the numbers of pairs where there are too few."""
    pair = line.pairs.get((CANDIDATE, BASE))
    if pair is None:
        base, aligned = (mean if math.isfinite(mean) else None for mean in (line.means[BASE], line.means[CANDIDATE]))
        return {"evaluator": line.metric, "base": base, ALIGNED: aligned}
    return {
        "evaluator": line.metric,
        "num_pairs": pair.num_pairs,
        "base": pair.before,
        ALIGNED: pair.after,
        "difference": pair.difference,
        "low": pair.low,
        "high": pair.high,
        "win_rate": pair.win_rate,
        "num_prompts": pair.num_clusters,
    }


def _line(record: Mapping[str, Any]) -> Line:
    before, after = (math.nan if record[name] is None else record[name] for name in (BASE, ALIGNED))
    pairs = {}
    if "num_pairs" in record:
        numbers = {name: record[name] for name in ("num_pairs", "difference", "low", "high", "win_rate")}
        # Earlier versions did not say how many prompts the pairs were of, and there was one each.
        clusters = record.get("num_prompts", record["num_pairs"])
        pairs[CANDIDATE, BASE] = Paired(before=before, after=after, num_clusters=clusters, **numbers)
    # Earlier versions wrote `judge`.
    return Line(record.get("evaluator") or record["judge"], {BASE: before, CANDIDATE: after}, pairs)

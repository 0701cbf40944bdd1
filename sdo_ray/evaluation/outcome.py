"""What a finished run leaves: numbers, images, the adapter, and where each is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from sdo_ray.evaluation.compare import Comparison, as_table
from sdo_ray.evaluation.contact_sheet import before_after
from sdo_ray.storage import RunDirectory

FILE, SHEET, IMAGES = "outcome.json", "before_after.png", "heldout.parquet"


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    comparisons: tuple[Comparison, ...]
    """Every evaluator, aligned against base on held-out prompts."""
    places: Mapping[str, str]
    """In words -> path, URI or command."""

    def __str__(self) -> str:
        width = max(len(what) for what in self.places)
        where = "\n".join(f"{what:<{width}}  {place}" for what, place in self.places.items())
        return f"{as_table(self.comparisons)}\n\n{where}"


def write_images(directory: Path, images: pa.Table) -> list[Path]:
    """Write the held-out images with their scores, and the before/after sheet; returns the two files."""
    sheet, table = directory / SHEET, directory / IMAGES
    before_after(*(images[name].to_pylist() for name in ("prompt", "base", "aligned"))).save(sheet)
    pyarrow.parquet.write_table(images, table, compression="zstd")
    return [sheet, table]


def write_outcome(run: RunDirectory, outcome: Outcome) -> None:
    """Mark the run as complete."""
    run.write(FILE, json.dumps(asdict(outcome), indent=2).encode())


def read_outcome(run: RunDirectory) -> Outcome | None:
    """The outcome of a complete run, None of any other."""
    data = run.read_json(FILE)
    if data is None:
        return None
    now = {"judge": "evaluator"}  # a name that earlier versions wrote
    comparisons = ({now.get(key, key): value for key, value in c.items()} for c in data["comparisons"])
    return Outcome(tuple(Comparison(**c) for c in comparisons), data["places"])

"""What a finished run leaves: numbers, pictures, the adapter, and where each is."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet

from sdo_ray.evaluation.compare import Comparison, as_table
from sdo_ray.evaluation.sheet import before_after
from sdo_ray.storage import RunDirectory

FILE = "outcome.json"


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    comparisons: tuple[Comparison, ...]
    """Every judge, aligned against base on held-out prompts."""
    places: Mapping[str, str]
    """In words -> path, URI or command."""

    def __str__(self) -> str:
        width = max(len(what) for what in self.places)
        where = "\n".join(f"{what:<{width}}  {place}" for what, place in self.places.items())
        return f"{as_table(self.comparisons)}\n\n{where}"


def write_pictures(run: RunDirectory, pictures: pa.Table) -> dict[str, str]:
    """Keep the held-out pictures with their scores, and the before/after sheet; returns what is where."""
    buffer = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pictures, buffer, compression="zstd")
    sheet = io.BytesIO()
    before_after(pictures).save(sheet, format="PNG")
    return {
        "before/after sheet": run.write("before_after.png", sheet.getvalue()),
        "all pictures and scores": run.write("heldout.parquet", buffer.getvalue().to_pybytes()),
    }


def write_outcome(run: RunDirectory, outcome: Outcome) -> None:
    """Mark the run as complete."""
    run.write(FILE, json.dumps(asdict(outcome), indent=2).encode())


def read_outcome(run: RunDirectory) -> Outcome | None:
    """The outcome of a complete run, None of any other."""
    data = run.read_json(FILE)
    if data is None:
        return None
    return Outcome(tuple(Comparison(**c) for c in data["comparisons"]), data["places"])

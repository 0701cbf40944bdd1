"""What a run leaves: finished batches while it goes on, and at its end numbers, images and variables."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet
from pyarrow import fs

from sdo_ray.evaluation.contact_sheet import before_after
from sdo_ray.input_optimization.records import SCORE, TEXT, RowBatch
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import RunDirectory

PARTS, RESULTS, SHEET, FILE = "rows", "rows.parquet", "before_after.png", "outcome.json"

OLD_NAMES = {"initial_picture": "initial_image", "final_picture": "final_image"}
"""Columns of results of earlier versions -> their names now."""


@dataclass(frozen=True)
class Change:
    """One reward's scores of the final images against the initial ones."""

    reward: str
    """Its key."""
    before: float
    """Mean over the rows, of the initial images."""
    after: float
    """Of the final ones."""
    improved: float
    """Share of the rows that score higher than before."""


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    num_rows: int
    changes: tuple[Change, ...]
    """Every reward, the mixed one first."""
    places: Mapping[str, str]
    """In words -> path, URI or command."""

    def __str__(self) -> str:
        width = max(len(name) for name in [*self.places, *(change.reward for change in self.changes)])
        lines = [f"{f'{self.num_rows} rows':<{width}}  {'before':>9}  {'after':>9}  {'higher':>6}"]
        lines += [
            f"{change.reward:<{width}}  {change.before:9.3f}  {change.after:9.3f}  {change.improved:6.0%}"
            for change in self.changes
        ]
        return "\n".join([*lines, "", *(f"{what:<{width}}  {place}" for what, place in self.places.items())])


class Parts:
    """The results of finished batches, a file each, so that the same command again does those that are missing.

    Args:
        run: the run's directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def add(self, part: pa.Table) -> None:
        """Keep the results of a batch."""
        self._run.write(f"{PARTS}/{part['row'][0].as_py():08d}.parquet", parquet(part))

    def read(self) -> list[pa.Table]:
        """All that are there, in order of their rows."""
        folder = fs.FileSelector(f"{self._run.path}/{PARTS}", allow_not_found=True)
        paths = sorted(file.path for file in self._run.filesystem.get_file_info(folder))
        parts = [
            pyarrow.parquet.read_table(path, filesystem=self._run.filesystem)
            for path in paths
            if path.endswith(".parquet")
        ]
        return [part.rename_columns([OLD_NAMES.get(name, name) for name in part.column_names]) for part in parts]

    def missing(self, batches: Sequence[RowBatch]) -> list[RowBatch]:
        """The batches that are not there.

        Raises:
            SettingsError: one is there with other texts.
        """
        done = {batch.rows[0]: batch for batch in map(RowBatch.from_arrow, self.read())}
        if changed := [batch for batch in batches if done.get(batch.rows[0], batch) != batch]:
            raise SettingsError(
                Problem(
                    "rows",
                    f"from row {changed[0].rows[0]} on they are not those that this run began with",
                    fix="restore them, or give this run another name",
                )
            )
        return [batch for batch in batches if batch.rows[0] not in done]


def parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a parquet file."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def changes(results: pa.Table) -> list[Change]:
    """Initial against final images, by the mixed reward and every reward."""
    best = results["best_iteration"].to_pylist()
    found = []
    for column in ("mixed", *(name for name in results.column_names if name.startswith(SCORE))):
        curves = results[column].to_pylist()
        pairs = [(curve[0], curve[i]) for curve, i in zip(curves, best, strict=True)]
        before, after = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        improved = sum(end > start for start, end in pairs) / len(pairs)
        found.append(Change(column.removeprefix(SCORE), before, after, improved))
    return found


def curves(results: pa.Table) -> list[dict[str, float]]:
    """Means over the rows after 0, 1, .. steps, by the mixed reward and every reward; a row that stopped keeps its last
    values."""
    names = ["mixed", *(name for name in results.column_names if name.startswith(SCORE))]
    columns = {name.removeprefix(SCORE): results[name].to_pylist() for name in names}
    length = max(map(len, columns["mixed"]))
    return [
        {name: sum(curve[min(i, len(curve) - 1)] for curve in rows) / len(rows) for name, rows in columns.items()}
        for i in range(length)
    ]


def sheet(results: pa.Table, column: str) -> bytes:
    """The before/after sheet's PNG: each row's two images, and its texts.

    Args:
        results: all rows.
        column: the text that is the prompt.
    """
    texts = [TEXT + column, *(name for name in results.column_names if name.startswith(TEXT) and name != TEXT + column)]
    captions = [" > ".join(row.values()) for row in results.select(texts).to_pylist()]
    images = (results[name].to_pylist() for name in ("initial_image", "final_image"))
    buffer = io.BytesIO()
    before_after(captions, *images, cell=160).save(buffer, format="PNG")
    return buffer.getvalue()


def write_outcome(run: RunDirectory, outcome: Outcome) -> None:
    """Mark the run as complete."""
    run.write_json(FILE, asdict(outcome))


def read_outcome(run: RunDirectory) -> Outcome | None:
    """The outcome of a complete run, None of any other."""
    data = run.read_json(FILE)
    if data is None:
        return None
    return Outcome(data["num_rows"], tuple(Change(**change) for change in data["changes"]), data["places"])

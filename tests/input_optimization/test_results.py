"""What a run leaves."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sdo_ray.input_optimization.records import OptimizedRow, RowBatch, final_variable, results_table
from sdo_ray.input_optimization.results import (
    Change,
    Outcome,
    Parts,
    changes,
    curves,
    parquet,
    read_outcome,
    sheet,
    write_outcome,
)
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def result(row: int, mixed: list[float], best: int) -> OptimizedRow:
    return OptimizedRow(
        row=row,
        texts={"target": "x", "prompt": "abc"[row]},
        initial_image=png("red"),
        final_image=png("blue"),
        best_iteration=best,
        scores={"ink@target": [2 * value for value in mixed]},
        mixed=mixed,
        kept_steps=[1] * (len(mixed) - 1),
        variable={"initial": torch.zeros(4), "final": torch.full((4,), float(row))},
    )


@pytest.fixture
def table() -> pa.Table:
    return results_table([result(0, [1.0, 2.0, 3.0], 2), result(1, [1.0, 0.5], 0)])


def test_a_table_holds_everything_and_survives_a_file(table: pa.Table) -> None:
    read = pq.read_table(io.BytesIO(parquet(table)))
    assert read.equals(table)
    assert read.column_names == [
        "row", "text.target", "text.prompt", "initial_image", "final_image", "best_iteration", "mixed",
        "score.ink@target", "kept_steps", "variable",
    ]  # fmt: skip
    assert torch.equal(final_variable(read.to_pylist()[1]), torch.ones(4))


def test_changes_and_curves(table: pa.Table) -> None:
    assert changes(table) == [Change("mixed", 1.0, 2.0, 0.5), Change("ink@target", 2.0, 4.0, 0.5)]
    assert curves(table) == [
        {"mixed": 1.0, "ink@target": 2.0},
        {"mixed": 1.25, "ink@target": 2.5},
        {"mixed": 1.75, "ink@target": 3.5},  # the second row stopped at 0.5
    ]


def test_the_sheet_shows_both_images(table: pa.Table) -> None:
    image = Image.open(io.BytesIO(sheet(table, "prompt"))).convert("RGB")
    assert image.getpixel((64 + 80, 80)) == (255, 0, 0)
    assert image.getpixel((64 + 80, 160 + 80)) == (0, 0, 255)


def test_parts_are_those_that_are_missing(tmp_path: Path, table: pa.Table) -> None:
    run = RunDirectory(str(tmp_path), "run")
    parts = Parts(run)
    work = [
        RowBatch((0, 1), {"target": ("x", "x"), "prompt": ("a", "b")}),
        RowBatch((2,), {"target": ("x",), "prompt": ("c",)}),
    ]
    assert parts.missing(work) == work
    parts.add(table)
    assert parts.missing(work) == work[1:]
    parts.add(results_table([result(2, [1.0], 0)]))
    assert parts.missing(work) == []
    assert pa.concat_tables(parts.read())["row"].to_pylist() == [0, 1, 2]
    with pytest.raises(SettingsError, match="from row 0 on they are not those that this run began with"):
        parts.missing([RowBatch((0, 1), {"target": ("x", "x"), "prompt": ("a", "d")}), work[1]])


def test_an_outcome_is_kept_and_readable(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path), "run")
    assert read_outcome(run) is None
    outcome = Outcome(2, (Change("mixed", 1.0, 2.0, 0.5),), {"sheet": "here"})
    write_outcome(run, outcome)
    assert read_outcome(run) == outcome
    assert str(outcome).splitlines()[1].split() == ["mixed", "1.000", "2.000", "50%"]

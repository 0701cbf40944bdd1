"""Rows from a file or from the settings themselves."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdo_ray.input_optimization.records import RowBatch
from sdo_ray.input_optimization.rows import batches, read_rows
from sdo_ray.input_optimization.settings import RowSettings
from sdo_ray.settings import SettingsError

GIVEN = [{"prompt": "a", "target": "x"}, {"prompt": "b", "target": "y", "note": "n"}, {"prompt": "c", "target": "z"}]


@pytest.fixture
def path(tmp_path: Path) -> str:
    table = {"prompt": ["a", "b", "c"], "target": ["x", "y", "z"], "hole": ["x", None, "z"], "number": [1, 2, 3]}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    return str(tmp_path / "rows.parquet")


def test_both_sources_say_the_same(path: str) -> None:
    expected = {"prompt": ["a", "b", "c"], "target": ["x", "y", "z"]}
    assert read_rows(RowSettings(given=GIVEN), ["target", "target"]) == expected
    assert read_rows(RowSettings(path=path), ["target"]) == expected
    assert read_rows(RowSettings(path=path, column="target", limit=2), []) == {"target": ["x", "y"]}
    assert read_rows(RowSettings(given=GIVEN, limit=1), []) == {"prompt": ["a"]}


def test_batches_hold_all_rows_in_order_and_travel() -> None:
    parts = batches(read_rows(RowSettings(given=GIVEN), ["target"]), 2)
    assert parts == [
        RowBatch((0, 1), {"prompt": ("a", "b"), "target": ("x", "y")}),
        RowBatch((2,), {"prompt": ("c",), "target": ("z",)}),
    ]
    assert [RowBatch.from_arrow(part.to_arrow()) for part in parts] == parts


@pytest.mark.parametrize(
    ("settings", "columns", "said"),
    [
        ({}, [], "got neither of `path` and `given`; give either `path`, a file, or `given`, the rows themselves."),
        ({"path": "rows.parquet", "given": GIVEN}, [], "got both of `path` and `given`"),
        (
            {"given": GIVEN},
            ["goal"],
            "given: 3 of 3 rows have no text 'goal' (rows 0, 1, 2, from 0); they have note",
        ),
        ({"given": GIVEN}, ["note"], "2 of 3 rows have no text 'note' (rows 0, 2, from 0)"),
        ({"path": "nowhere.parquet"}, [], "path: 'nowhere.parquet' does not exist"),
        ({"path": True}, ["goal"], "no column 'goal'; it has prompt, target, hole, number"),
        ({"path": True}, ["hole"], "1 of 3 rows have no text in column 'hole' (rows 1, from 0)"),
        ({"path": True, "column": "number"}, [], "column 'number' holds int64"),
    ],
)
def test_refused(path: str, settings: dict[str, Any], columns: list[str], said: str) -> None:
    if settings.get("path") is True:
        settings = settings | {"path": path}
    with pytest.raises(SettingsError) as refused:
        read_rows(RowSettings(**settings), columns)
    assert said in str(refused.value)

"""The files that prompts come in, each as a table of text."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.fs

FORMATS = ("csv", "tsv", "json", "jsonl", "txt")
"""What a file's name ends in, `.gz` behind it or not; a file with any other name, or a directory, is parquet."""

LEGAL = "give .csv, .tsv, .json, .jsonl, .txt, any of them also as .gz, or a parquet file or a directory of them"
"""The same for people."""

LINE = "prompt"
"""Name of the only column of a txt file, and of a list of texts in JSON."""


def format_of(path: str) -> str:
    """The format that a file's name or URI says."""
    name = path.partition("?")[0].lower().removesuffix(".gz")
    return next((kind for kind in FORMATS if name.endswith(f".{kind}")), "parquet")


def read_file(path: str, columns: Collection[str]) -> tuple[list[str], pa.Table]:
    """The names of all columns in a file, and a table of those of `columns` that are there once.

    Rows are as they are: nulls, and texts that are empty. Only a parquet file knows other types than text.

    Args:
        path: a file, of parquet also a directory, local or at a URI that pyarrow knows (`s3://`, `gs://`, ...).
        columns: names of the columns of text.

    Raises:
        OSError, pyarrow.ArrowException, ValueError: it is not there, or is not what its name says.
    """
    kind = format_of(path)
    if kind == "parquet":
        return _parquet(path, columns)
    if kind in ("csv", "tsv"):
        return _delimited(path, columns, "," if kind == "csv" else "\t")
    text = _text(path)
    if kind == "txt":
        return [LINE], pa.table({name: _lines(text) for name in columns if name == LINE})
    return _objects(_json_lines(text) if kind == "jsonl" else _json(text), columns)


def _parquet(path: str, columns: Collection[str]) -> tuple[list[str], pa.Table]:
    dataset = pyarrow.dataset.dataset(path, format="parquet")
    if not dataset.files:
        raise ValueError("it is a directory without parquet files")
    names = dataset.schema.names
    table = dataset.to_table(columns=[name for name in columns if names.count(name) == 1])
    table.validate(full=True)  # text that is not UTF-8 would break whoever reads it
    return names, table


def _delimited(path: str, columns: Collection[str], delimiter: str) -> tuple[list[str], pa.Table]:
    table = pyarrow.csv.read_csv(
        open_file(path),
        # One thread, so that errors name the row.
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        # A prompt may be a number, and "null" is a word.
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in columns}, strings_can_be_null=False
        ),
    )
    names = table.column_names
    return names, table.select([name for name in columns if names.count(name) == 1])


def _lines(text: str) -> list[str]:
    """Lines; that the last one has an end makes no further one."""
    lines = text.split("\n")
    return lines[:-1] if not lines[-1] else lines


def _json(text: str) -> list[Any]:
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError(f"it holds {_kind(rows)}, not a list of objects or of texts")
    return rows


def _json_lines(text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return rows


def _objects(rows: Sequence[Any], columns: Collection[str]) -> tuple[list[str], pa.Table]:
    """Objects as rows; a text is an object with `LINE` alone.

    Not by pyarrow, which takes what looks like a date for one, and a column that is not there for one of nulls.
    """
    objects = [{LINE: row} if isinstance(row, str) else row for row in rows]
    for number, row in enumerate(objects):
        if not isinstance(row, Mapping):
            raise ValueError(f"row {number}, from 0, is {_kind(row)}, neither an object nor a text")
        for name in columns:
            if not isinstance(row.get(name), str | None):
                raise ValueError(f"row {number}, from 0: {name!r} is {_kind(row[name])}; it takes a text")
    names = list(dict.fromkeys(name for row in objects for name in row))
    found = {name: pa.array([row.get(name) for row in objects], pa.string()) for name in columns if name in names}
    return names, pa.table(found)


def _kind(value: Any) -> str:
    """What a value of JSON is, for people."""
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )


def _text(path: str) -> str:
    """The whole file, lines ended by one newline whatever system wrote them."""
    with open_file(path) as stream:
        text: str = stream.read().decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def open_file(path: str) -> pa.NativeFile:
    """A stream of a file or URI, decompressed if its name says so."""
    filesystem, inner = pyarrow.fs.FileSystem.from_uri(path) if "://" in path else (pyarrow.fs.LocalFileSystem(), path)
    return filesystem.open_input_stream(inner)

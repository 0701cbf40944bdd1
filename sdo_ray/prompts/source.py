"""Read raw prompts from the formats that people have them in."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs

from sdo_ray.prompts.clean import Prompt
from sdo_ray.prompts.settings import PreparationSettings
from sdo_ray.settings import SettingsError

FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".txt": "lines"}
"""Ending of the file's name -> format; a name without any of these is a directory of parquet files."""


def read_source(settings: PreparationSettings) -> list[Prompt]:
    """Every prompt of the source, as it is.

    Raises:
        SettingsError: it does not exist, cannot be read, has no such column, or its column holds no text.
    """
    source = settings.source
    kind = next((kind for ending, kind in FORMATS.items() if source.lower().endswith(ending)), "parquet")
    try:
        if kind == "lines":
            return [Prompt(row, line) for row, line in enumerate(_text(source).splitlines())]
        table = _table(source, kind, [settings.column, *([settings.category] if settings.category else [])])
    except FileNotFoundError:
        raise SettingsError(
            f"prompts.source: {source!r} does not exist; give a file or directory of prompts."
        ) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = str(error).splitlines()[0]
        raise SettingsError(
            f"prompts.source: {source!r} cannot be read as {kind}: {cause}; give .parquet, .csv, .jsonl or .txt."
        ) from None
    texts = _strings(table, settings.column, "prompts.column")
    categories = _strings(table, settings.category, "prompts.category") if settings.category else [None] * len(texts)
    return [Prompt(row, text, category) for row, (text, category) in enumerate(zip(texts, categories, strict=True))]


def _text(source: str) -> str:
    filesystem, path = (
        pyarrow.fs.FileSystem.from_uri(source) if "://" in source else (pyarrow.fs.LocalFileSystem(), source)
    )
    with filesystem.open_input_stream(path) as stream:
        text: str = stream.read().decode()
        return text


def _table(source: str, kind: str, columns: list[str]) -> pa.Table:
    dataset = pyarrow.dataset.dataset(source, format=kind)
    for setting, column in zip(("prompts.column", "prompts.category"), columns, strict=False):
        if column not in dataset.schema.names:
            names = ", ".join(dataset.schema.names) or "none"
            raise SettingsError(f"{setting}: {source!r} has no column {column!r}; it has {names}.")
    return dataset.to_table(columns=columns)


def _strings(table: pa.Table, column: str, setting: str) -> list[str | None]:
    kind = table.schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise SettingsError(f"{setting}: column {column!r} holds {kind}; it takes text. Name another column.")
    values: list[str | None] = table.column(column).to_pylist()
    return values

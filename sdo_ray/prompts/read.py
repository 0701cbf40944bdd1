"""The one reader of prompts, and of texts beside them: what it returns is text, and what it refuses is said by row."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sdo_ray.prompts.formats import LEGAL, LINE, format_of, read_file
from sdo_ray.settings import Problem, SettingsError


def read_prompts(path: str, column: str = LINE) -> list[str]:
    """All prompts of a file; see `read_texts`."""
    prompts: list[str] = read_texts(path, [column]).column(column).to_pylist()
    return prompts


def read_texts(
    path: str, columns: Sequence[str], *, labels: Sequence[str] = (), optional: Sequence[str] = ()
) -> pa.Table:
    """Rows that all have a text in each of `columns`.

    A line of a txt file that is empty is no row.

    Args:
        path: see `read_columns`.
        columns: different names.
        labels: see `read_columns`.
        optional: see `read_columns`.

    Returns:
        A table of strings, the columns in the order of the arguments.

    Raises:
        SettingsError: as `read_columns`, or a text is null or empty (which rows), or there are no rows.
    """
    table = read_columns(path, columns, labels=labels, optional=optional)
    if format_of(path) == "txt":
        table = table.filter(_says_something(table[LINE]))
    for column in columns:
        bad = [row for row, says in enumerate(_says_something(table[column]).to_pylist()) if not says]
        if bad:
            rows = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
            got = f"{path!r}: {len(bad)} of {len(table)} rows have no text in column {column!r} (rows {rows}, from 0)"
            raise SettingsError(Problem("", got, fix="remove them"))
    if not len(table):
        raise SettingsError(Problem("", f"{path!r} has no rows", "it takes at least one prompt"))
    return table


def read_columns(
    path: str, columns: Sequence[str], *, labels: Sequence[str] = (), optional: Sequence[str] = ()
) -> pa.Table:
    """Columns of text as they are, with nulls and texts that are empty.

    Args:
        path: .csv, .tsv, .json (a list of objects or of texts), .jsonl, .txt (a prompt a line, in a column `prompt`),
            each also .gz; or a parquet file or directory; local or at a URI that pyarrow knows (`s3://`, `gs://`, ...).
        columns: what there must be.
        labels: what there must be too, and is null where it is empty.
        optional: labels that need not be there, and are null then.

    Returns:
        A table of strings, the columns in the order of the arguments.

    Raises:
        SettingsError: no such file, not what its name says, no such column or two of one name, or no text. Its problems
            are of the path.
    """
    needed = [*columns, *labels]
    every = list(dict.fromkeys([*needed, *optional]))
    try:
        names, table = read_file(path, every)
    except FileNotFoundError:
        raise SettingsError(Problem("", f"{path!r} does not exist", fix=LEGAL)) from None
    except Exception as error:  # of pyarrow, and of whoever reads a URI for it
        kind, cause = format_of(path), (str(error).splitlines() or [type(error).__name__])[0]
        got = f"{path!r} cannot be read as {kind}: {cause.rstrip('.')}"
        about_content = isinstance(error, pa.ArrowException | ValueError) and "Unrecognized filesystem" not in cause
        fix = _ADVICE[kind] if "://" not in path or about_content else _ADVICE["://"]
        raise SettingsError(Problem("", got, fix=fix)) from None
    for name in needed:
        if name not in names:
            legal = f"it has {', '.join(names) or 'none'}"
            raise SettingsError(Problem("", f"{path!r} has no column {name!r}", legal, _hint(path, names)))
    found: dict[str, pa.ChunkedArray] = {}
    for name in every:
        if names.count(name) > 1:
            got = f"{path!r} has {names.count(name)} columns called {name!r}"
            raise SettingsError(Problem("", got, fix="rename all but one"))
        texts = _as_text(path, table, name) if name in names else pa.chunked_array([pa.nulls(len(table), pa.string())])
        found[name] = texts if name in columns else pc.if_else(_says_something(texts), texts, None)
    return pa.table(found)


_ADVICE = {
    "csv": 'save it as UTF-8, what holds a comma or a line break in "quotes"',
    "tsv": "save it as UTF-8, with a tab between columns",
    "json": "make it a list of objects or of texts",
    "jsonl": "make each line an object",
    "txt": "save it as UTF-8",
    "parquet": LEGAL,
    "://": "correct it or the access to it, or download it; s3://, gs:// and hf:// are read, web pages are not",
}
"""Format -> what to do about a file that is none."""


def _hint(path: str, names: Sequence[str]) -> str:
    """What to do about a column that is not there."""
    if format_of(path) not in ("csv", "tsv"):
        return "name the one with the texts"
    if len(names) == 1 and (signs := [sign for sign in ";\t|," if sign in names[0]]):
        return f"they seem to be separated by {signs[0]!r}: save it with commas, or as .tsv with tabs"
    return "name the one with the texts; the first line has to be the columns' names"


def _as_text(path: str, table: pa.Table, column: str) -> pa.ChunkedArray:
    """A column as strings, also one that is stored in another way, such as a category.

    Raises:
        SettingsError: it holds something else.
    """
    kind = table.schema.field(column).type
    stored = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(
        of_kind(stored)
        for of_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    ):
        got = f"{path!r}: column {column!r} holds {kind}"
        raise SettingsError(Problem("", got, "it takes text", "name another column"))
    return table[column].cast(pa.string())


def _says_something(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each text is there, and more than white space."""
    return pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(texts), ""), False)

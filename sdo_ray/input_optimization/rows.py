"""Read the rows to optimise, refuse bad ones, and cut them into batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sdo_ray.input_optimization.records import RowBatch
from sdo_ray.input_optimization.settings import RowSettings
from sdo_ray.prompts.inputs import Row, read_inputs
from sdo_ray.prompts.read import read_texts
from sdo_ray.settings import Problem, SettingsError, under

Texts = Mapping[str, list[str]]
"""Column -> one text a row."""


def read_rows(settings: RowSettings, columns: Iterable[str]) -> Texts:
    """The texts of all rows.

    Args:
        settings: where they are.
        columns: besides the prompts', which of their columns to read.

    Raises:
        SettingsError: no rows or two sources of them, no such file or column, or a text that is null or empty.
    """
    wanted = list(dict.fromkeys([settings.column, *columns]))
    if (settings.path is None) == (not settings.given):
        raise SettingsError(
            Problem(
                "",
                f"got {'neither' if settings.path is None else 'both'} of `path` and `given`",
                fix="give either `path`, a file, or `given`, the rows themselves",
            )
        )
    if settings.path is None:
        return {column: _given(settings, column)[: settings.limit] for column in wanted}
    with under("path"):
        texts: Texts = read_texts(settings.path, wanted).slice(0, settings.limit).to_pydict()
    return texts


def read_row_inputs(settings: RowSettings, batch_size: int | None = None) -> list[Row]:
    """What the pipeline is given besides each row's prompt; empty if no more.

    Args:
        settings: where they are.
        batch_size: see `read_inputs`.

    Raises:
        SettingsError: they are of rows that have no file; or see `read_inputs`.
    """
    if settings.inputs and settings.path is None:
        raise SettingsError(Problem("inputs", "given, but the rows have no file", fix="give the rows by `path`"))
    with under("path"):
        rows = read_inputs(settings.path or "", settings.column, settings.inputs, batch_size=batch_size)
    return rows[: settings.limit]


def batches(texts: Texts, size: int, inputs: Sequence[Row] = ()) -> list[RowBatch]:
    """All rows in order, in batches of at most `size`.

    Args:
        texts: of `read_rows`.
        size: rows that are optimised at once.
        inputs: of `read_row_inputs`.
    """
    count = len(next(iter(texts.values())))
    return [
        RowBatch(
            tuple(range(first, min(first + size, count))),
            {column: tuple(values[first : first + size]) for column, values in texts.items()},
            tuple(inputs[first : first + size]),
        )
        for first in range(0, count, size)
    ]


def _given(settings: RowSettings, column: str) -> list[str]:
    lacking = [row for row, texts in enumerate(settings.given) if not texts.get(column, "").strip()]
    if lacking:
        known = ", ".join(sorted({name for texts in settings.given for name in texts}))
        raise SettingsError(
            Problem(
                "given",
                f"{len(lacking)} of {len(settings.given)} rows have no text {column!r} "
                f"(rows {', '.join(map(str, lacking[:5]))}, from 0)",
                f"they have {known or 'none'}",
                "add it to each",
            )
        )
    return [texts[column] for texts in settings.given]

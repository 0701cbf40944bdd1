"""What else a row of prompts gives the pipeline's call: images, sounds, numbers and texts of other columns.

A row's inputs are small: texts and numbers, a file by its path. `call_arguments` makes of them what a pipeline takes,
where it is called; so every node has to read the files.
"""

from __future__ import annotations

import io
import json
import math
import wave
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from sdo_ray.prompts.formats import open_file
from sdo_ray.prompts.read import read_texts
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import below

Row = Mapping[str, str | float]
"""Argument of the call -> its value: a number, a text, or the path or URI of a file."""

IMAGES, SOUNDS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}, {".wav"}
"""What names of files end in."""

STRENGTH = "strength"
"""Argument of image-to-image: the share of the sampling steps that it takes, the last ones."""

FOR_REWARDS = "reward."
"""What names of columns start with that rewards alone are given, and no call."""

OF_WEIGHTS = FOR_REWARDS + "weight."
"""Of these, columns of weights."""

COLUMN = "inputs"
"""Of tables, where a row's inputs are JSON."""


def with_texts(inputs: Mapping[str, str], texts: Iterable[str | None]) -> dict[str, str]:
    """Argument of the pipeline's call -> column, and the columns of rewards' texts that feed no argument.

    Args:
        inputs: argument of the call -> column.
        texts: columns; None is none.
    """
    fed = {*inputs.values(), None}
    return dict(inputs) | {FOR_REWARDS + text: text for text in texts if text is not None and text not in fed}


def with_weights(columns: Mapping[str, str], weigh_by: Iterable[str | None]) -> dict[str, str]:
    """Argument of the pipeline's call -> column, and the columns of rewards' weights."""
    return dict(columns) | {OF_WEIGHTS + column: column for column in weigh_by if column is not None}


def weights_of(prompts: Sequence[str], column: str) -> tuple[float, ...]:
    """What rows have in a column of weights.

    Raises:
        ValueError: the prompts came without it.
    """
    rows = prompts.inputs if isinstance(prompts, Prompts) else ()
    if not rows or OF_WEIGHTS + column not in rows[0]:
        raise ValueError(f"the prompts came without column {column!r}, by which a reward is weighed")
    return tuple(float(row[OF_WEIGHTS + column]) for row in rows)


def check_weights(rows: Sequence[Row], weigh_by: Iterable[str | None]) -> None:
    """Check that columns of weights have such.

    Raises:
        SettingsError: naming the column and what it has; its problem is of the path.
    """
    for column in dict.fromkeys(column for column in weigh_by if column is not None):
        values = [row[OF_WEIGHTS + column] for row in rows]
        wrong = [value for value in values if not isinstance(value, float) or not 0 <= value < math.inf]
        if wrong or not any(values):
            what = repr(wrong[0]) if wrong else "nothing but 0"
            got = f"column {column!r}, by which a reward is weighed, has {what}"
            raise SettingsError(Problem("", got, "numbers from 0 on, some above", "correct the column"))


class Prompts(tuple[str, ...]):
    """The prompts of a batch with their inputs; to whom those are nothing, a tuple of texts.

    Args:
        prompts: B prompts.
        inputs: of each; may be empty.
    """

    inputs: tuple[Row, ...]

    def __new__(cls, prompts: Sequence[str], inputs: Sequence[Row] = ()) -> Self:  # noqa: D102
        made = super().__new__(cls, prompts)
        made.inputs = tuple(inputs)
        return made


def argument_of(column: str | None, inputs: Mapping[str, str]) -> str | None:
    """The argument that a column feeds; None if there is no column, or it feeds none."""
    return next((argument for argument, name in inputs.items() if name == column), None)


def texts_of(prompts: Sequence[str], argument: str | None) -> list[str]:
    """What a reward is given: the prompts, or the texts that the pipeline's call was given as an argument.

    Args:
        prompts: B prompts, `Prompts` where there is an argument.
        argument: of the call; None: the prompts.
    """
    if argument is None:
        return list(prompts)
    assert isinstance(prompts, Prompts)
    return [str(row[argument]) for row in prompts.inputs]


def read_inputs(path: str, column: str, inputs: Mapping[str, str], *, batch_size: int | None = None) -> list[Row]:
    """The inputs of every prompt that `read_prompts` returns, in its order.

    A column whose values all are numbers is one of numbers; where all end like files of images, or of sounds, it is of
    files, whose relative paths start where the prompts' file is; any other is of texts.

    Args:
        path: the prompts' file, see `read_columns`.
        column: the prompts'.
        inputs: argument of the call -> column.
        batch_size: samples made at once; None if that they can be was seen before, and files are not opened.

    Raises:
        SettingsError: see `read_texts`; a column has files and others; a file cannot be read; what a call takes once
            differs, or images differ in size, and several samples are made at once. Its problems are of the path.
    """
    if not inputs:
        return []
    table = read_texts(path, list(dict.fromkeys([column, *inputs.values()])))
    columns = {argument: _values(path, name, table[name].to_pylist()) for argument, name in inputs.items()}
    if batch_size is not None:
        for argument, values in columns.items():
            _check(path, argument, inputs[argument], values, batch_size)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def call_arguments(rows: Sequence[Row]) -> dict[str, Any]:
    """What the pipeline is given for a batch: lists of images or texts, sounds [B, C, T], the number that all have.

    Raises:
        SettingsError: a file cannot be read.
    """
    return {argument: _argument([row[argument] for row in rows]) for argument in kinds_of(rows[0] if rows else {})}


def kinds_of(row: Row) -> dict[str, str]:
    """Argument of the call -> what it is given: "number", "image", "sound" or "text"."""
    return {argument: _kind(value) for argument, value in row.items() if not argument.startswith(FOR_REWARDS)}


def as_column(rows: Sequence[Row]) -> pa.Array:
    """Rows as a column of a table; `from_column` reads it."""
    return pa.array([json.dumps(dict(row)) for row in rows], pa.string())


def from_column(texts: Sequence[str]) -> list[Row]:
    """The inverse of `as_column`."""
    return [json.loads(text) for text in texts]


def _values(path: str, column: str, texts: Sequence[str]) -> list[str] | list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError:
        pass
    are = {_suffix(text) in IMAGES | SOUNDS for text in texts}
    if are == {True, False}:
        odd = next(text for text in texts if _suffix(text) not in IMAGES | SOUNDS)
        legal = f"files of images end in {', '.join(sorted(IMAGES))}, of sounds in {', '.join(SOUNDS)}"
        raise SettingsError(Problem("", f"{path!r}: column {column!r} has files and {odd!r}", legal))
    return [_beside(path, text) for text in texts] if are == {True} else list(texts)


def _check(path: str, argument: str, column: str, values: Sequence[str | float], batch_size: int) -> None:
    """Numbers are one a call; images of a call have one size. Files are opened, and images not read to the end."""
    sizes: set[Any] = set()
    if all(isinstance(value, float) for value in values):
        sizes = set(values)
    elif _suffix(str(values[0])) in IMAGES:
        sizes = {_image(str(file)).size for file in dict.fromkeys(values)}
    elif _suffix(str(values[0])) in SOUNDS:
        sizes = {_sound(str(file)).shape for file in dict.fromkeys(values)}
    if len(sizes) > 1 and argument == STRENGTH:
        got = f"{path!r}: column {column!r} has {len(sizes)} numbers, and another {STRENGTH} is another number of steps"
        raise SettingsError(Problem("", got, fix="give all rows the same one"))
    if len(sizes) > 1 and batch_size > 1 and not argument.startswith(FOR_REWARDS):
        got = f"{path!r}: column {column!r} has {len(sizes)} numbers or sizes, such as {next(iter(sizes))}"
        raise SettingsError(Problem("", f"{got}, and a call takes one", fix="choose samplers.batch_size: 1"))


def _argument(values: Sequence[str | float]) -> Any:
    match _kind(values[0]):
        case "number":
            return values[0]
        case "image":
            return [_image(str(file)).convert("RGB") for file in values]
        case "sound":
            import torch  # here, because processes that only lay out prompts do without it

            return torch.from_numpy(np.stack([_sound(str(file)) for file in values]))
    return list(values)


def _kind(value: str | float) -> str:
    if isinstance(value, float | int):
        return "number"
    return "image" if _suffix(value) in IMAGES else "sound" if _suffix(value) in SOUNDS else "text"


def _image(path: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(open_file(path).read()))
    except (OSError, UnidentifiedImageError) as error:
        raise SettingsError(_unreadable(path, error)) from None


def _sound(path: str) -> np.ndarray:
    """[C, T] float32 in [-1, 1] of a WAV of 16 bits."""
    try:
        with wave.open(io.BytesIO(open_file(path).read())) as file:
            if file.getsampwidth() != 2:
                raise OSError(f"it has {8 * file.getsampwidth()} bits; it takes 16")
            heard = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, file.getnchannels())
    except (OSError, wave.Error, EOFError) as error:
        raise SettingsError(_unreadable(path, error)) from None
    return (heard.T / 32768.0).astype(np.float32)


def _unreadable(path: str, error: Exception) -> Problem:
    return Problem("", f"{path!r} cannot be read: {' '.join(str(error).split())}", fix="correct the path, or the file")


def _suffix(value: str | float) -> str:
    return PurePosixPath(str(value).partition("?")[0]).suffix.lower()


def _beside(path: str, file: str) -> str:
    """A relative path starts where the prompts' file is, or in their directory."""
    if "://" in file or file.startswith(("/", "~")):
        return file if "://" in file else str(Path(file).expanduser())
    folder, mark, query = path.partition("?") if "://" in path else (path, "", "")
    if "." in PurePosixPath(folder).name:
        folder = folder.rpartition("/")[0]
    return below(f"{folder or '.'}{mark}{query}", file)

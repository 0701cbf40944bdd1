"""What an evaluation leaves for people, reports and promotion rules: every image with every score."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from sdo_ray.storage import RunDirectory

BASE, CANDIDATE, CHAMPION = "base", "candidate", "champion"
"""The roles that models play in an evaluation; there need be no champion."""

FILES = ("picture", "media")
"""Columns with files, of each role: a PNG that shows a sample and, of what is no image, a file that plays it."""

IMAGES, NUMBERS = "pictures.parquet", "evaluation.json"
"""The two files."""

SHA256_TAG = "sdo.evaluation.sha256"
"""Tag of an evaluation's MLflow run: what `evaluation_sha256` says of its files."""


@dataclass(frozen=True)
class Evaluation:
    """Models side by side on the same prompts and noise.

    Attributes:
        name: of the evaluation.
        models: role -> where the model is: `zoo://NAME`, a path, a hub id, or `models:/NAME/VERSION`.
        images: one row a (prompt, noise) pair: `index` int64, `prompt` and `category` text (`category` may be null),
            and for every role `ROLE.picture`, of what is no image `ROLE.media` (see `FILES`), `ROLE.METRIC` float64.
            A metric of a whole prompt, such as diversity, has the same value in all rows of that prompt.
        set_metrics: metric -> role -> value, for what only a whole set of images has (Frechet distance).
        details: anything else worth keeping; JSON. `sdo evaluate` keeps `created` (ISO time), `mlflow_run`, `sha256`
            (role -> of its files), `settings`, `provenance`, `metrics` (metric -> `about`, `trained_on`, `heldout`),
            `comparisons` (see `summary.as_records`), `history` (reward -> [update, mean, deviation] of the candidate's
            training), `reference_images` and what `metrics.frechet_yardsticks` returns.
    """

    name: str
    models: Mapping[str, str]
    images: pa.Table
    set_metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> str | None:
        """The MLflow run of the evaluation, which notes what its files are; those of version 0.1.0 do not say."""
        return self.details.get("mlflow_run")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that every image has, in the table's order."""
        prefix = f"{BASE}."
        names = (name.removeprefix(prefix) for name in self.images.column_names if name.startswith(prefix))
        return tuple(name for name in names if name not in FILES)


def write_evaluation(run: RunDirectory, evaluation: Evaluation, pictures: Iterable[pa.Table] | None = None) -> None:
    """Keep it as `IMAGES` and `NUMBERS`; the second is written last, and marks it as complete.

    Args:
        run: its directory.
        evaluation: what to keep.
        pictures: the `FILES` of some rows after others', where its own table is without.
    """
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / IMAGES
        if pictures is None:
            pyarrow.parquet.write_table(evaluation.images, file, compression="zstd")
        else:
            _write_in_groups(file, evaluation.images, pictures)
        run.copy_file(file, IMAGES)
    numbers = {
        "name": evaluation.name,
        "models": dict(evaluation.models),
        "set_metrics": {name: dict(values) for name, values in evaluation.set_metrics.items()},
        "details": dict(evaluation.details),
    }
    run.write_json(NUMBERS, numbers)


def first_with_pictures(evaluation: Evaluation, pictures: Iterator[pa.Table], rows: int) -> Evaluation:
    """The evaluation with the images' files of its first `rows` rows, and nulls in the others."""
    table, some = evaluation.images, list[pa.Table]()
    while sum(map(len, some)) < min(rows, len(table)):
        some.append(next(pictures))
    first = pa.concat_tables(some).slice(0, rows)
    for name in first.column_names:
        nulls = pa.nulls(len(table) - len(first), pa.binary())
        table = table.append_column(name, pa.chunked_array([*first[name].chunks, nulls], pa.binary()))
    return replace(evaluation, images=table)


def _write_in_groups(file: Path, images: pa.Table, pictures: Iterable[pa.Table]) -> None:
    """A group of rows at a time."""
    writer, first = None, 0
    for some in pictures:
        group = images.slice(first, len(some))
        for name in some.column_names:
            group = group.append_column(name, some[name])
        writer = writer or pyarrow.parquet.ParquetWriter(file, group.schema, compression="zstd")
        writer.write_table(group)
        first += len(some)
    assert writer is not None
    assert first == len(images)
    writer.close()


def read_evaluation(run: RunDirectory, *, pictures: bool = True) -> Evaluation | None:
    """A complete evaluation, None if there is none.

    Args:
        run: its directory.
        pictures: whether the images' files are read too; without them it is small.
    """
    numbers = run.read_json(NUMBERS)
    if numbers is None:
        return None
    with run.filesystem.open_input_file(f"{run.path}/{IMAGES}") as file:
        names = pyarrow.parquet.read_schema(file).names
    with run.filesystem.open_input_file(f"{run.path}/{IMAGES}") as file:
        wanted = [name for name in names if pictures or name.rpartition(".")[2] not in FILES]
        images = pyarrow.parquet.read_table(file, columns=wanted)
    return Evaluation(images=images, **numbers)


def evaluation_sha256(run: RunDirectory) -> str:
    """sha256 over the two files of a complete evaluation."""
    digest = hashlib.sha256()
    for name in (NUMBERS, IMAGES):
        of_file = hashlib.sha256()
        with run.filesystem.open_input_stream(f"{run.path}/{name}") as file:
            while block := file.read(1 << 20):
                of_file.update(block)
        digest.update(of_file.digest())
    return digest.hexdigest()

"""Finished images of an evaluation that goes on, so that the same command again makes only those that are missing."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet
from pyarrow import fs

from sdo_ray.evaluation.images import image_blocks
from sdo_ray.evaluation.result import FILES
from sdo_ray.storage import RunDirectory

DIRECTORY = "parts"

AT_ONCE = 32
"""Rows whose images are in memory at once, of each model: some 15 MB at 512 pixels."""


class Parts:
    """The parts that `make_images` yields, a file each in the run's directory.

    Args:
        run: the evaluation's directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._path = f"{run.path}/{DIRECTORY}"

    def add(self, part: pa.Table) -> None:
        """Keep a part."""
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(part, buffer, compression="zstd")
        name = f"{part['role'][0].as_py()}-{part['index'][0].as_py():08d}.parquet"
        self._run.write(f"{DIRECTORY}/{name}", buffer.getvalue())

    def read(self, columns: list[str] | None = None) -> list[pa.Table]:
        """All parts that are there, with all columns or some."""
        return [self._read(file, columns) for file in self._files()]

    def pictures(self, roles: Sequence[str], questions: pa.Table) -> Iterator[pa.Table]:
        """The `FILES`, such as `ROLE.picture`, of some rows of `questions` after others': all at once are gigabytes.

        Args:
            roles: the models; every index of each is there.
            questions: of `draw_questions`.
        """
        places: dict[tuple[str, int], str] = {}
        for file in self._files():
            known = self._read(file, ["role", "index"])
            places |= dict.fromkeys(zip(*known.to_pydict().values(), strict=True), file)
        indices = questions["index"].to_pylist()
        for first in range(0, len(indices), AT_ONCE):
            some = indices[first : first + AT_ONCE]
            columns = {}
            for role in roles:
                files = dict.fromkeys(places[role, index] for index in some)
                kinds = [name for name in FILES if name in self._schema(next(iter(files))).names]
                found = pa.concat_tables([self._read(file, ["index", *kinds]) for file in files])
                for kind in kinds:
                    given = dict(zip(found["index"].to_pylist(), found[kind].to_pylist(), strict=True))
                    columns[f"{role}.{kind}"] = [given[index] for index in some]
            yield pa.table(columns)

    def missing(self, roles: list[str], questions: pa.Table, size: int) -> list[pa.Table]:
        """The work that is left, as blocks of at most `size` rows, one role's after another's.

        Args:
            roles: the models.
            questions: of `draw_questions`.
            size: images made at once.
        """
        done = {pair for part in self.read(["role", "index"]) for pair in zip(*part.to_pydict().values(), strict=True)}
        return image_blocks(roles, questions, size, done)

    def scores(self) -> list[pa.Table]:
        """All parts that are there, without the images' files."""
        return [
            self._read(file, [name for name in self._schema(file).names if name not in FILES]) for file in self._files()
        ]

    def remove(self) -> None:
        """Remove them, once the evaluation is kept whole."""
        self._run.filesystem.delete_dir_contents(self._path, missing_dir_ok=True)
        self._run.filesystem.delete_dir(self._path)

    def _files(self) -> list[str]:
        files = self._run.filesystem.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        return sorted(file.path for file in files if file.path.endswith(".parquet"))

    def _read(self, file: str, columns: list[str] | None) -> pa.Table:
        return pyarrow.parquet.read_table(file, columns=columns, filesystem=self._run.filesystem)

    def _schema(self, file: str) -> pa.Schema:
        return pyarrow.parquet.read_schema(file, filesystem=self._run.filesystem)

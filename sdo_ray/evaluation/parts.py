"""Finished images of an evaluation that goes on, so that the same command again makes only those that are missing."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet
from pyarrow import fs

from sdo_ray.evaluation.images import image_blocks
from sdo_ray.storage import RunDirectory

DIRECTORY = "parts"


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
        files = self._run.filesystem.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        names = sorted(file.path for file in files if file.path.endswith(".parquet"))
        return [pyarrow.parquet.read_table(name, columns=columns, filesystem=self._run.filesystem) for name in names]

    def missing(self, roles: list[str], questions: pa.Table, size: int) -> list[pa.Table]:
        """The work that is left, as blocks of at most `size` rows, one role's after another's.

        Args:
            roles: the models.
            questions: of `draw_questions`.
            size: images made at once.
        """
        done = {pair for part in self.read(["role", "index"]) for pair in zip(*part.to_pydict().values(), strict=True)}
        return image_blocks(roles, questions, size, done)

    def remove(self) -> None:
        """Remove them, once the evaluation is kept whole."""
        self._run.filesystem.delete_dir_contents(self._path, missing_dir_ok=True)
        self._run.filesystem.delete_dir(self._path)

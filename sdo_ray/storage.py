"""A run's directory, local or at a URI that pyarrow knows."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pyarrow import fs

from sdo_ray.settings import Problem, SettingsError

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a run may be called: a directory's name on every system, and no way out of its storage."""
LONGEST_NAME = 200
"""File systems take 255 bytes, and what belongs to a run is called after it."""


def below(place: str, name: str) -> str:
    """What is called `name` in a directory: a path or a URI, whose query stays at its end."""
    if "://" not in place:
        return f"{place}/{name}"
    uri = urlsplit(place)
    return urlunsplit(uri._replace(path=f"{uri.path.rstrip('/')}/{name}"))


class RunDirectory:
    """Everything one run keeps.

    Args:
        storage: a local directory, made absolute here, or a URI such as `s3://bucket/path?region=eu-west-1`.
        name: the run's name, a directory below it.
    """

    def __init__(self, storage: str, name: str) -> None:
        storage = storage.removeprefix("file://")
        self.is_local = "://" not in storage
        self.storage = str(Path(storage).expanduser().resolve()) if self.is_local else storage.rstrip("/")
        self.name = name
        self.uri = below(self.storage, name)
        if self.is_local:
            self.filesystem, self.path = fs.LocalFileSystem(), self.uri
        else:
            try:
                self.filesystem, self.path = fs.FileSystem.from_uri(self.uri)
            except (ValueError, OSError) as error:
                raise SettingsError(Problem("run.storage", f"{storage!r} cannot be used: {error}")) from None

    @classmethod
    def at(cls, place: str) -> RunDirectory:
        """The directory at a path or a URI, whose last part is the run's name."""
        place, mark, query = place.rstrip("/").partition("?") if "://" in place else (place.rstrip("/"), "", "")
        storage, _, name = place.rpartition("/")
        return cls((storage or ("/" if place.startswith("/") else ".")) + mark + query, name)

    def place(self, name: str) -> str:
        """The full name of a file in it: a path, or a URI."""
        return below(self.uri, name)

    def read_json(self, name: str, lost: str = "what it says is made again") -> Any:
        """The content of a JSON file, or None if there is none.

        Args:
            name: of the file.
            lost: in words, what goes with the file where it is deleted.

        Raises:
            SettingsError: it is damaged, such as by a disk that was full; `lost` is said.
        """
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
                return json.loads(stream.read())
        except FileNotFoundError:
            return None
        except ValueError as error:
            got = f"{self.place(name)} is damaged: {error}"
            fix = f"restore it, or delete it and run the same command again; lost with it: {lost}"
            raise SettingsError(Problem("run.storage", got, fix=fix)) from None

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is none.
        """
        with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            data: bytes = stream.read()
        return data

    def write(self, name: str, data: bytes) -> str:
        """Write a file, which is there whole or not at all whatever is killed meanwhile; returns its full name."""
        return self._write(name, (data,))

    def copy_file(self, file: Path, name: str) -> str:
        """Copy a local file here, block by block; as `write`."""
        with file.open("rb") as source:
            return self._write(name, iter(lambda: source.read(1 << 20), b""))

    def write_json(self, name: str, data: Any) -> str:
        """Write a JSON file; returns its full name."""
        return self.write(name, json.dumps(data, indent=2).encode())

    def copy_in(self, directory: Path) -> None:
        """Copy all of a local directory's files here, under the same names."""
        for file in sorted(path for path in directory.rglob("*") if path.is_file()):
            self.copy_file(file, file.relative_to(directory).as_posix())

    def copy_out(self, name: str, target: Path) -> Path:
        """Copy a file, or a directory with all in it, to a local place; returns that."""
        whole = self.filesystem.get_file_info(f"{self.path}/{name}").type == fs.FileType.Directory
        (target if whole else target.parent).mkdir(parents=True, exist_ok=True)
        fs.copy_files(f"{self.path}/{name}", str(target), source_filesystem=self.filesystem)
        return target

    def has(self, name: str) -> bool:
        """Whether there is a file or directory of this name."""
        return bool(self.filesystem.get_file_info(f"{self.path}/{name}").type != fs.FileType.NotFound)

    def check_space(self, needed: int) -> None:
        """Refuse a local place that cannot be written or has too little room; object stores have no such limit.

        Args:
            needed: bytes.

        Raises:
            SettingsError: why it cannot be written, or what is needed and what is free.
        """
        if not self.is_local:
            return
        try:
            Path(self.storage).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.storage):
                pass
        except OSError as error:
            got = f"{self.storage!r} cannot be written: {error.strerror}"
            raise SettingsError(Problem("run.storage", got, fix="name a directory that can")) from None
        free = shutil.disk_usage(self.storage).free
        if free < needed:
            got = (
                f"{self.storage!r} has {free / 1e6:,.0f} MB free, and the run's checkpoints need {needed / 1e6:,.0f} MB"
            )
            raise SettingsError(Problem("run.storage", got, fix="free some, or name another place"))

    def _write(self, name: str, blocks: Iterable[bytes]) -> str:
        target = f"{self.path}/{name}"
        self.filesystem.create_dir(target.rpartition("/")[0], recursive=True)
        # Object stores show a file once it is whole; on a disk it gets its name then.
        # Two writers of one file each have a name of their own until then.
        written = f"{target}.{uuid.uuid4().hex[:8]}.part" if self.is_local else target
        with self.filesystem.open_output_stream(written) as stream:
            for block in blocks:
                stream.write(block)
        if written != target:
            with Path(written).open("rb") as file:
                os.fsync(file.fileno())  # a name for what is on the disk
            self.filesystem.move(written, target)
        return self.place(name)

"""What travels to the cluster with a job: the files of its working directory that it needs, and no others."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdo_ray.settings import Problem, SettingsError

MAX_BYTES = 100_000_000
"""Ray would take five times as much, and keep it in the memory of the head node."""

NOT_NEEDED = ("__pycache__", "*.pyc", "*.egg-info", "node_modules", "runs", "mlruns", "mlartifacts", "mlflow.db")
"""Names of files and directories that never travel, besides hidden ones and virtual environments."""

PRIVATE = ("*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*", "auth_token", "credentials*", "secrets*")
"""Names of what is likely to be secret, which never travels either."""


@dataclass(frozen=True)
class Package:
    """What was packed."""

    files: int
    """How many."""
    size: int
    """Bytes."""
    private: tuple[str, ...]
    """Left out as likely secret."""

    def __str__(self) -> str:
        left = f"; left out as private: {', '.join(self.private)}" if self.private else ""
        return f"{self.files} file{'s' * (self.files != 1)}, {self.size / 1e6:.1f} MB{left}"


def pack(directory: Path, target: Path, exclude: Sequence[str] = ()) -> Package:
    """Copy what a job needs of `directory` to the empty directory `target`.

    Links to files are copied as files, links to directories are not followed.

    Args:
        directory: the working directory.
        target: where the copy goes.
        exclude: patterns of names to leave out besides the usual ones, such as `*.zip`.

    Raises:
        SettingsError: it is too large; the largest parts are named.
    """
    private: list[str] = []
    chosen = {file: file.stat().st_size for file in _files(directory, (*NOT_NEEDED, *exclude), private)}
    if (size := sum(chosen.values())) > MAX_BYTES:
        parts: dict[str, int] = {}
        for file, length in chosen.items():
            part = file.relative_to(directory).parts[0]
            parts[part] = parts.get(part, 0) + length
        largest = sorted(parts, key=lambda part: -parts[part])[:5]
        named = ", ".join(f"{part} ({parts[part] / 1e6:,.0f} MB)" for part in largest)
        raise SettingsError(
            Problem(
                "--working-dir",
                f"{str(directory)!r} has {size / 1e6:,.0f} MB to send, and {MAX_BYTES / 1e6:,.0f} MB can be sent; the "
                f"largest parts are {named}",
                fix="leave some out with --exclude PATTERN, name a smaller directory, or put data on storage that the "
                "nodes read",
            )
        )
    for file in chosen:
        copy = target / file.relative_to(directory)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return Package(len(chosen), size, tuple(private))


def _files(directory: Path, unwanted: Sequence[str], private: list[str]) -> Iterator[Path]:
    for place, directories, files in os.walk(directory):
        here = Path(place)
        directories[:] = sorted(
            name
            for name in directories
            if _travels(name, unwanted, here, directory, private) and not (here / name / "pyvenv.cfg").exists()
        )
        for name in sorted(files):
            if _travels(name, unwanted, here, directory, private) and (here / name).is_file():
                yield here / name


def _travels(name: str, unwanted: Sequence[str], here: Path, root: Path, private: list[str]) -> bool:
    if name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in unwanted):
        return False
    if any(fnmatch.fnmatch(name, pattern) for pattern in PRIVATE):
        private.append(str((here / name).relative_to(root)))
        return False
    return True

"""What travels to the cluster with a job: what its settings name, the Python files beside them, and no others."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdo_ray.secrets import redact
from sdo_ray.settings import Problem, SettingsError

MAX_BYTES = 100_000_000
"""Ray would take five times as much, and keep it in the memory of the head node."""

NOT_NEEDED = ("__pycache__", "*.pyc", "*.egg-info", "node_modules", "runs", "mlruns", "mlartifacts", "mlflow.db")
"""Names of files and directories that never travel, besides hidden ones and virtual environments."""

PRIVATE = (
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.p8", "*.jks", "*.env", "id_*", "kubeconfig*", "service-account*"),
    *("*token*", "*password*", "*passwd*", "*secret*", "*credential*", "*_key*", "*-key*"),
)
"""Names, in small letters, of what is likely to be secret, which never travels either; Python files do, if no secret is
in them."""

SCANNED = 1_000_000
"""Bytes: a smaller file is read, and does not travel if it holds what has the form of a secret."""


@dataclass(frozen=True)
class Package:
    """What was packed."""

    files: int
    """How many."""
    size: int
    """Bytes."""
    private: tuple[str, ...]
    """Left out as likely secret."""
    sha256: str
    """Of the files, names included."""

    def __str__(self) -> str:
        left = f"; left out as private: {', '.join(self.private)}" if self.private else ""
        return f"{self.files} file{'s' * (self.files != 1)}, {self.size / 1e6:.1f} MB{left}"


def pack(
    directory: Path, target: Path, named: Collection[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Package:
    """Copy what a job needs of `directory` to the empty directory `target`.

    That is what its settings name, files or directories with all that is in them, and every Python file. Links to files
    are copied as files, if they stay inside; links to directories are not followed.

    Args:
        directory: the working directory.
        target: where the copy goes.
        named: the settings file, and what it names, inside of `directory`.
        include: patterns of names, or of paths below `directory`, that travel too, such as `data/*.json`.
        exclude: patterns of names to leave out, such as `*.zip`.

    Raises:
        SettingsError: it is too large, with its largest parts; something named does not travel, with the reason.
    """
    private: list[str] = []
    wanted = [path.resolve() for path in named]

    def is_needed(file: Path) -> bool:
        path = file.relative_to(directory).as_posix()
        return (
            file.suffix == ".py"
            or any(file.resolve().is_relative_to(place) or file.absolute().is_relative_to(place) for place in wanted)
            or any(fnmatch.fnmatch(name, pattern) for name in (file.name, path) for pattern in include)
        )

    files = _files(directory.resolve(), (*NOT_NEEDED, *exclude), private)
    directory = directory.resolve()
    chosen = {file: file.stat().st_size for file in files if is_needed(file) and _is_open(file, directory, private)}
    _check_named(named, chosen, private, directory)
    if (size := sum(chosen.values())) > MAX_BYTES:
        parts: dict[str, int] = {}
        for file, length in chosen.items():
            part = file.relative_to(directory).parts[0]
            parts[part] = parts.get(part, 0) + length
        largest = sorted(parts, key=lambda part: -parts[part])[:5]
        sizes = ", ".join(f"{part} ({parts[part] / 1e6:,.0f} MB)" for part in largest)
        raise SettingsError(
            Problem(
                "--working-dir",
                f"{str(directory)!r} has {size / 1e6:,.0f} MB to send, and {MAX_BYTES / 1e6:,.0f} MB can be sent; the "
                f"largest parts are {sizes}",
                fix="leave some out with --exclude PATTERN, name a smaller directory, or put data on storage that the "
                "nodes read",
            )
        )
    digest = hashlib.sha256()
    for file in sorted(chosen):
        copy = target / file.relative_to(directory)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        digest.update(file.relative_to(directory).as_posix().encode())
        digest.update(hashlib.sha256(copy.read_bytes()).digest())
    return Package(len(chosen), size, tuple(private), digest.hexdigest())


def _check_named(named: Collection[Path], chosen: Collection[Path], private: list[str], directory: Path) -> None:
    """What the settings name has to be there on the cluster."""
    for path in named:
        if not any(file.resolve().is_relative_to(path.resolve()) for file in chosen):
            name = path.resolve().relative_to(directory).as_posix()
            why = (
                "is likely to be secret" if name in private else "is of what never travels: hidden, excluded, or a run"
            )
            raise SettingsError(
                Problem("--working-dir", f"the settings name {name!r}, which {why}", fix="rename or move it")
            )


def _files(directory: Path, unwanted: Sequence[str], private: list[str]) -> Iterator[Path]:
    for place, directories, files in os.walk(directory):
        here = Path(place)
        directories[:] = sorted(
            name
            for name in directories
            if _travels(name, unwanted, here, directory, private) and not (here / name / "pyvenv.cfg").exists()
        )
        for name in sorted(files):
            if (here / name).is_file() and _travels(name, unwanted, here, directory, private):
                yield here / name


def _travels(name: str, unwanted: Sequence[str], here: Path, root: Path, private: list[str]) -> bool:
    if name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in unwanted):
        return False
    if not name.endswith(".py") and any(fnmatch.fnmatch(name.lower(), pattern) for pattern in PRIVATE):
        private.append(str((here / name).relative_to(root)))
        return False
    return True


def _is_open(file: Path, directory: Path, private: list[str]) -> bool:
    """Whether nothing in it has the form of a secret, and it is no way to a file outside."""
    if file.resolve().is_relative_to(directory) and not (file.stat().st_size <= SCANNED and _holds_secret(file)):
        return True
    private.append(str(file.relative_to(directory)))
    return False


def _holds_secret(file: Path) -> bool:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return redact(text) != text

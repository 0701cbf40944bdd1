"""What a checkpoint consists of, so that one that is damaged is found before it is used.

`manifest.json`, {"files": {name: [bytes, sha256]}}, is written when all other files are, and names all of them. A file
that was cut, emptied, or comes from another checkpoint is so known by its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train
from pyarrow import fs

MANIFEST = "manifest.json"

Files = Mapping[str, tuple[int, str]]
"""Name, from the checkpoint's directory on -> bytes, and sha256."""

_checked: dict[tuple[Any, ...], str | None] = {}
"""What `damage` found, of files that have not been written to since."""


def files_in(directory: Path) -> Files:
    """All files of a local directory, those below it too."""
    found = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(directory).as_posix()] = (path.stat().st_size, digest)
    return found


def write_manifest(directory: Path, files: Files) -> None:
    """Write the manifest of a checkpoint with these files."""
    (directory / MANIFEST).write_text(json.dumps({"files": files}))


def exists(checkpoint: ray.train.Checkpoint) -> bool:
    """Whether a checkpoint has a manifest."""
    info = checkpoint.filesystem.get_file_info(f"{checkpoint.path}/{MANIFEST}")
    return bool(info.type == fs.FileType.File)


def damage(checkpoint: ray.train.Checkpoint) -> str | None:
    """What is wrong with a checkpoint, in words; None if it is whole. All of it is read.

    Of one without a manifest, as earlier versions wrote them, nothing can be said, and it counts as whole.
    """
    place, storage = checkpoint.path, checkpoint.filesystem
    try:
        with storage.open_input_file(f"{place}/{MANIFEST}") as file:
            files: Files = json.loads(file.read())["files"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is not what was written"
    infos = dict(zip(files, storage.get_file_info([f"{place}/{name}" for name in files]), strict=True))
    for name, info in infos.items():
        size = files[name][0]
        if info.type == fs.FileType.NotFound:
            return f"{name} is missing"
        if info.size != size:
            return f"{name} has {info.size} bytes where {size} were written"
    known = (place, *((name, info.size, info.mtime_ns) for name, info in infos.items()))
    if known not in _checked:
        wrong = [name for name, (_, digest) in files.items() if _digest(storage, f"{place}/{name}") != digest]
        _checked[known] = f"{wrong[0]} is not what was written" if wrong else None
    return _checked[known]


def _digest(storage: fs.FileSystem, path: str) -> str:
    digest = hashlib.sha256()
    with storage.open_input_stream(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

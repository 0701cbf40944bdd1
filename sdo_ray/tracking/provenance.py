"""What exactly made a model: code, packages, base model and rewards."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

PACKAGES = ("sdo-ray", "torch", "diffusers", "transformers", "peft", "ray", "deepspeed", "mlflow")

SUFFIXES = (".safetensors", ".json", ".txt", ".model")
"""Files that make a model: weights, configurations and vocabularies; neither pickles nor code."""


def environment() -> dict[str, str]:
    """Git revision of the code, "unknown" outside a checkout and "+changes" with uncommitted ones; package versions."""
    return {"git_revision": _git_revision()} | {f"version.{name}": _version(name) for name in PACKAGES}


def fingerprint(location: str) -> str:
    """sha256 over the weights, configurations and vocabularies of a model, names included: equal models, equal hash.

    Args:
        location: a directory in diffusers format.
    """
    directory = Path(location)
    files = (path for path in directory.rglob("*") if path.suffix in SUFFIXES)
    return combined({file.relative_to(directory).as_posix(): file_hash(file) for file in files})


def file_hash(file: Path) -> bytes:
    """sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def combined(hashes: Mapping[str, bytes]) -> str:
    """sha256 over files, names included.

    Args:
        hashes: path in the directory, with `/` -> sha256 of the file.
    """
    digest = hashlib.sha256()
    for name in sorted(hashes, key=PurePosixPath):
        digest.update(name.encode())
        digest.update(hashes[name])
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git_revision() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names; lists by position."""
    flat: dict[str, str] = {}
    items = settings.items() if isinstance(settings, dict) else enumerate(settings)
    for key, value in items:
        if isinstance(value, dict | list) and value:
            flat |= flatten(value, f"{prefix}{key}.")  # type: ignore[arg-type]
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat

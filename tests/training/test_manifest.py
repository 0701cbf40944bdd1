"""Damaged checkpoints are found, by file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import ray.train

from sdo_ray.training.checkpoints import PROGRESS, why_not
from sdo_ray.training.manifest import MANIFEST, files_in, write_manifest

SHARD = "engine/shard.pt"


def write(directory: Path, update: int, **also: str) -> ray.train.Checkpoint:
    (directory / "engine").mkdir(parents=True)
    (directory / SHARD).write_bytes(bytes(range(256)) * 100 * update)
    (directory / PROGRESS).write_text(json.dumps({"update": update, "manifest": True, "reports": []} | also))
    write_manifest(directory, files_in(directory))
    return ray.train.Checkpoint.from_directory(str(directory))


def cut(directory: Path) -> None:
    (directory / SHARD).write_bytes((directory / SHARD).read_bytes()[:-1])


def empty(directory: Path) -> None:
    (directory / SHARD).write_bytes(b"")


def flip(directory: Path) -> None:
    data = bytearray((directory / SHARD).read_bytes())
    data[1000] ^= 1
    (directory / SHARD).write_bytes(data)


def take_progress_of_another(directory: Path) -> None:
    shutil.copy(directory.parent / "other" / PROGRESS, directory)


def remove_all(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (cut, f"{SHARD} has 51199 bytes where 51200 were written"),
        (empty, f"{SHARD} has 0 bytes where 51200 were written"),
        (flip, f"{SHARD} is not what was written"),
        (take_progress_of_another, f"{PROGRESS} is not what was written"),
        (lambda directory: (directory / SHARD).unlink(), f"{SHARD} is missing"),
        (lambda directory: (directory / MANIFEST).write_bytes(b""), f"{MANIFEST} is not what was written"),
        (lambda directory: (directory / MANIFEST).unlink(), f"{MANIFEST} is missing"),
        (remove_all, f"{PROGRESS} is missing"),
    ],
)
def test_damage_is_named(tmp_path: Path, harm: Callable[[Path], None], complaint: str) -> None:
    write(tmp_path / "other", 3)
    checkpoint = write(tmp_path / "one", 2)
    assert why_not("run", 2, checkpoint) is None
    harm(tmp_path / "one")
    assert why_not("run", 2, checkpoint) == complaint


def test_a_whole_one_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    assert why_not("run", 3, write(tmp_path / "one", 2)) == f"{PROGRESS} is of update 2, and not of 3"
    of_another = write(tmp_path / "two", 2, run="other")
    assert why_not("run", 2, of_another) == "it is of the run 'other'"
    assert why_not("other", 2, of_another) is None


def test_those_of_earlier_versions_are_taken(tmp_path: Path) -> None:
    (tmp_path / PROGRESS).write_text('{"update": 2, "reports": []}')
    checkpoint = ray.train.Checkpoint.from_directory(str(tmp_path))
    assert why_not("run", 2, checkpoint) is None
    (tmp_path / PROGRESS).write_text('{"update": 2, "rep')
    assert why_not("run", 2, checkpoint) == f"{PROGRESS} is not what was written"

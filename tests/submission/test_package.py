"""Only what a job needs travels."""

import os
from pathlib import Path

import pytest

from sdo_ray.settings import SettingsError
from sdo_ray.submission import package
from sdo_ray.submission.package import pack


@pytest.fixture
def work(tmp_path: Path) -> Path:
    directory = tmp_path / "work"
    for name, text in {
        "run.yaml": "a: 1",
        "my_rewards.py": "pass",
        "prompts/train.parquet": "x" * 100,
        "data/big.zip": "z" * 5000,
        "runs/a/checkpoint.pt": "no",
        ".git/config": "no",
        ".env": "PASSWORD=no",
        ".venv/bin/python": "no",
        "environment/pyvenv.cfg": "no",
        "environment/lib/x.py": "no",
        "__pycache__/a.pyc": "no",
        "mlflow.db": "no",
        "deploy/server.pem": "no",
        "deploy/id_rsa": "no",
        "credentials.json": "no",
        "secrets/password": "no",
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (directory / "outside").symlink_to(tmp_path)
    (directory / "linked.py").symlink_to(directory / "my_rewards.py")
    (directory / "dangling").symlink_to(directory / "nowhere")
    return directory


def files(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_what_travels(work: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    packed = pack(work, target)
    assert files(target) == {"run.yaml", "my_rewards.py", "linked.py", "prompts/train.parquet", "data/big.zip"}
    assert (packed.files, packed.size) == (5, 4 + 4 + 4 + 100 + 5000)
    assert set(packed.private) == {"deploy/server.pem", "deploy/id_rsa", "credentials.json", "secrets"}
    assert "left out as private: " in str(packed)
    assert not (target / "linked.py").is_symlink()


def test_more_can_be_skipped(work: Path, tmp_path: Path) -> None:
    pack(work, tmp_path / "target", exclude=["*.zip", "prompts"])
    assert files(tmp_path / "target") == {"run.yaml", "my_rewards.py", "linked.py"}


def test_too_large_is_refused_with_the_largest_parts(work: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(package, "MAX_BYTES", 5000)
    with pytest.raises(SettingsError, match=r"the largest parts are data \(0 MB\), prompts .*--exclude PATTERN"):
        pack(work, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    pack(work, tmp_path / "target", exclude=["data"])


def test_the_copy_depends_on_the_content_alone(work: Path, tmp_path: Path) -> None:
    pack(work, tmp_path / "one")
    os.utime(work / "run.yaml", (1, 1))
    pack(work, tmp_path / "two")
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

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
        "package/token_lengths.py": "pass",
        "prompts/train.parquet": "x" * 100,
        "prompts/secret.parquet": "no",
        "prompts/hidden/.x": "no",
        "data/big.zip": "z" * 5000,
        "notes.txt": "no",
        "runs/a/checkpoint.pt": "no",
        ".git/config.py": "no",
        ".venv/bin/python.py": "no",
        "environment/pyvenv.cfg": "no",
        "environment/lib/x.py": "no",
        "uploads.py": "KEY = 'hf_" + "a1" * 17 + "'",
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (tmp_path / "outside.py").write_text("no")
    (directory / "outside").symlink_to(tmp_path)
    (directory / "leaving.py").symlink_to(tmp_path / "outside.py")
    (directory / "linked.py").symlink_to(directory / "my_rewards.py")
    (directory / "dangling.py").symlink_to(directory / "nowhere")
    return directory


def files(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


PYTHON = {"my_rewards.py", "linked.py", "package/token_lengths.py"}


def test_what_travels(work: Path, tmp_path: Path) -> None:
    """What is named and the user's Python files; nothing that is secret by name or content, or outside."""
    target = tmp_path / "target"
    packed = pack(work, target, [work / "run.yaml", work / "prompts"])
    assert files(target) == {"run.yaml", "prompts/train.parquet", *PYTHON}
    assert (packed.files, packed.size) == (5, 4 + 100 + 3 * 4)
    assert set(packed.private) == {"prompts/secret.parquet", "uploads.py", "leaving.py"}
    assert "left out as private: " in str(packed)
    assert not (target / "linked.py").is_symlink()


def test_more_and_less_can_travel(work: Path, tmp_path: Path) -> None:
    pack(work, tmp_path / "one", [work / "run.yaml"], include=["data/*", "notes.txt"], exclude=["package"])
    assert files(tmp_path / "one") == {"run.yaml", "data/big.zip", "notes.txt", "my_rewards.py", "linked.py"}


@pytest.mark.parametrize(
    "name",
    [
        *("token-of-the-cluster", "mlflow_username_and_password", "s3_credentials", "hf_token", "postgres_password"),
        *("flask_secret_key", "kubeconfig", "prod.env", "service-account.json", "gcp-key.json", "my.token"),
        *("passwords.txt", "id_ecdsa", "keystore.jks", "cert.p8", "aws_credentials.ini", "Secrets.yaml", "server.pem"),
    ],
)
def test_names_of_secrets_never_travel(work: Path, tmp_path: Path, name: str) -> None:
    (work / name).write_text("no")
    assert pack(work, tmp_path / "target", [work / "run.yaml"], include=["*"]).private.count(name) == 1
    assert name not in files(tmp_path / "target")


def test_what_the_settings_name_travels_or_is_refused(work: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"name 'prompts/secret.parquet', which is likely to be secret"):
        pack(work, tmp_path / "target", [work / "prompts/secret.parquet"])
    with pytest.raises(SettingsError, match=r"name 'run.yaml', which is of what never travels: hidden, excluded"):
        pack(work, tmp_path / "target", [work / "run.yaml"], exclude=["*.yaml"])


def test_too_large_is_refused_with_the_largest_parts(work: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(package, "MAX_BYTES", 5000)
    named = [work / "data", work / "prompts"]
    with pytest.raises(SettingsError, match=r"the largest parts are data \(0 MB\), prompts .*--exclude PATTERN"):
        pack(work, tmp_path / "target", named)
    assert not (tmp_path / "target").exists()
    pack(work, tmp_path / "target", named[1:])


def test_the_copy_depends_on_the_content_alone(work: Path, tmp_path: Path) -> None:
    one = pack(work, tmp_path / "one", [work / "run.yaml"])
    os.utime(work / "run.yaml", (1, 1))
    two = pack(work, tmp_path / "two", [work / "run.yaml"])
    assert one == two
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    (work / "run.yaml").write_text("run: {name: other}")
    assert pack(work, tmp_path / "three", [work / "run.yaml"]).sha256 != one.sha256

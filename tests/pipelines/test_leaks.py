"""Secrets in settings, and where those of a whole run could leak to."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml

from pipelines.align import main
from tests.support.mlflow_server import ADMIN, mlflow_server
from tests.support.runs import AlignProcess, tiny_settings

SECRET = "hunter2-correct-horse"
TOKEN = "hf_" + "aB3" * 11

LEAKS = {
    "in a storage URI": ["run.storage=s3://key:{SECRET}@bucket/runs"],
    "in a parameter of a URI": ["run.storage=s3://bucket/runs?secret_key={SECRET}"],
    "in a model's URI": ["model.base=https://{TOKEN}@huggingface.co/org/name"],
    "a token as an option": ["rewards.terms.0.options={{seconds: 0.0, api_key: {SECRET}}}"],
    "in a reward's environment": ["rewards.terms.0.runtime_env={{env_vars: {{HF_TOKEN: {SECRET}}}}}"],
    "in a package's URI": ["rewards.terms.0.runtime_env={{working_dir: 'https://u:{SECRET}@host/a.zip'}}"],
    "in a prompt": ["tracking.preview_prompts=['{TOKEN}']"],
    "in what is no setting": ["trackingg.uri=http://u:{SECRET}@host"],
    "in what is no assignment": ["http://u:{SECRET}@host"],
    "in what is no YAML": ["run.storage=[http://u:{SECRET}@host"],
}


@pytest.mark.parametrize("overrides", LEAKS.values(), ids=LEAKS.keys())
def test_secrets_in_settings_are_refused_and_not_shown(
    tiny_base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], overrides: list[str]
) -> None:
    filled = [override.format(SECRET=SECRET, TOKEN=TOKEN) for override in overrides]
    settings = tiny_settings(tmp_path, tiny_base)
    assert main([str(settings), *(part for override in filled for part in ("--set", override))]) == 2
    said = "".join(capfd.readouterr())
    assert "sdo align did not start:" in said
    assert SECRET not in said
    assert TOKEN not in said
    assert not (tmp_path / "runs").exists()


def test_secrets_in_the_file_are_refused_and_not_shown(tiny_base: Path, tmp_path: Path, capfd) -> None:
    settings = tiny_settings(tmp_path, tiny_base)
    text = settings.read_text()
    settings.write_text(yaml.safe_dump(yaml.safe_load(text) | {"run": {"name": "a", "storage": f"s3://k:{SECRET}@b"}}))
    assert main([str(settings)]) == 2
    settings.write_text(f"{text}\npassword: {SECRET}\n")
    assert main([str(settings)]) == 2
    settings.write_text(f"run: [http://u:{SECRET}@host\nx: ]: {{")
    assert main([str(settings)]) == 2
    assert SECRET not in "".join(capfd.readouterr())


@pytest.fixture
def ray_directory() -> Iterator[Path]:
    """Where Ray keeps its logs; a short path, as it has sockets in it."""
    directory = Path(tempfile.mkdtemp(prefix="ray"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.slow
def test_a_runs_password_is_nowhere_afterwards(tiny_base: Path, tmp_path: Path, ray_directory: Path) -> None:
    """Given in the tracking URI, the worst place: not in the run's files, the server's, Ray's logs or on the screen."""
    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server", authenticated=True) as server:
        password = server.environment["MLFLOW_TRACKING_PASSWORD"]
        given = server.uri.replace("http://", f"http://{ADMIN}:{password}@")
        settings = tiny_settings(
            tmp_path, tiny_base, training={"updates": 2}, trainers={"count": 1}, tracking={"register_as": "tiny"}
        )
        environment = {"MLFLOW_TRACKING_URI": given, "RAY_TMPDIR": str(ray_directory)}
        with AlignProcess(str(settings), environment=environment) as process:
            said = process.finish()
        client = mlflow.MlflowClient(server.uri)
        os.environ.update(server.environment)
        try:
            (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
        finally:
            for name in server.environment:
                del os.environ[name]
    assert f"MLflow {server.uri}" in " ".join(said.split())
    assert password not in said
    assert password not in str(run.to_dictionary())
    assert any(ray_directory.rglob("*.out"))
    for directory in (tmp_path / "runs", tmp_path / "server", ray_directory):
        for file in directory.rglob("*"):
            if file.is_file() and not file.is_symlink():
                assert password.encode() not in file.read_bytes(), file

"""Which MLflow server, and whether it answers."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.server import check_server, how_to_look, tracking_uri, without_password


def test_the_environment_names_it_or_a_file_beside_the_runs_is_used(tmp_path: Path, monkeypatch) -> None:
    run = RunDirectory(str(tmp_path), "run")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(run) == f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(SettingsError, match=r"MLFLOW_TRACKING_URI: not set, .* is no local directory"):
        tracking_uri(RunDirectory(f"local://{tmp_path}", "run"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(run) == "http://mlflow:5000"


def test_a_database_file_answers(uri: str) -> None:
    check_server(uri)


def test_a_database_file_is_made_by_one_process_at_a_time(mlflow_database: Path) -> None:
    answered = threading.Thread(target=check_server, args=(f"sqlite:///{mlflow_database}",))
    with open(f"{mlflow_database}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answered.start()
        answered.join(1.5)
        assert answered.is_alive()
    answered.join(60)
    assert not answered.is_alive()


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "ftp://x", "postgresql://127.0.0.1:9/db", "sqlite:////nowhere/x.db"]
)
def test_one_that_does_not_answer_is_refused(uri: str, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    with pytest.raises(SettingsError, match=f"MLflow at {uri} does not answer: .*start the server"):
        check_server(uri)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"  # as it was


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:pass@host:5000/a?b=c", "http://host:5000/a?b=c"),
        ("http://user@host", "http://host"),
        ("http://u:p@ss@host", "http://host"),
        ("http://host", "http://host"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_credentials_are_not_shown(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


def test_how_to_look_shows_no_credentials() -> None:
    assert how_to_look("http://ann:hunter2@host:5000") == "http://host:5000"
    assert how_to_look("sqlite:////a/b.db") == "mlflow ui --backend-store-uri sqlite:////a/b.db"
    assert how_to_look("postgresql://ann:hunter2@db/x") == "mlflow ui --backend-store-uri postgresql://db/x"

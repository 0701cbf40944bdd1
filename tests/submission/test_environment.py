"""A job's environment holds references, and no secrets."""

import pytest

from sdo_ray.settings import SettingsError
from sdo_ray.submission.environment import job_environment


def test_names_and_references(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("OTHER", "stays here")
    given = ["MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD_FILE=/run/secrets/mlflow", "EMPTY=", "A=b=c"]
    assert job_environment(given) == {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "MLFLOW_TRACKING_PASSWORD_FILE": "/run/secrets/mlflow",
        "EMPTY": "",
        "A": "b=c",
    }


def test_secrets_and_missing_variables_are_refused_without_showing_them(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:hunter2@mlflow:5000")
    monkeypatch.setenv("HF_TOKEN", "hunter3")
    monkeypatch.delenv("MISSING", raising=False)
    with pytest.raises(SettingsError) as refused:
        job_environment(["MLFLOW_TRACKING_URI", "HF_TOKEN", "DB_PASSWORD=hunter4", "MISSING", "FINE=1"])
    said = str(refused.value)
    assert [str(problem).partition(":")[0] for problem in refused.value.problems] == [
        "--env MLFLOW_TRACKING_URI",
        "--env HF_TOKEN",
        "--env DB_PASSWORD",
        "--env MISSING",
    ]
    assert "hunter" not in said
    assert "MLFLOW_TRACKING_PASSWORD_FILE" in said

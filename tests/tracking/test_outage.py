"""A run's numbers and images on an MLflow server with users and PostgreSQL, which goes away in between."""

import time
from pathlib import Path

import mlflow
import pytest

from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking import outbox
from sdo_ray.tracking.run import TrackedRun, check_tracked
from sdo_ray.training.update_log import UpdateLog
from tests.support.mlflow_server import mlflow_server
from tests.support.postgres import postgres_server, skip_without_postgres
from tests.support.updates import report
from tests.tracking.test_run import image


@pytest.mark.slow
def test_the_database_is_away_and_comes_back_and_the_run_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for it, each update arrives once, and what was deleted is said before the next start."""
    skip_without_postgres()
    monkeypatch.setattr(outbox, "LONGEST_PAUSE", 2.0)
    run = RunDirectory(str(tmp_path / "runs"), "run")
    with postgres_server() as database, mlflow_server(tmp_path, backend=database.uri, authenticated=True) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        check_tracked(server.uri, "outages", run)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        with TrackedRun(server.uri, "outages", run, "a run", {"training": {"updates": 6}}) as tracked:
            with UpdateLog(tracked) as log:
                log.catch_up([report(0, image()), report(1, image())])
            with UpdateLog(tracked) as log:
                database.stop()
                began = time.monotonic()
                for update in (2, 3, 4):
                    log.observe(report(update, image()))
                assert time.monotonic() - began < 1
                while "MLflow takes no updates" not in (said := capsys.readouterr().out):
                    time.sleep(0.2)
                    assert time.monotonic() - began < 120
                database.start()
                log.observe(report(5, image()))
        said += capsys.readouterr().out
        assert "MLflow takes updates again" in said
        client = mlflow.MlflowClient(server.uri)
        history = client.get_metric_history(tracked.run_id, "reward/mean")
        assert [(metric.step, metric.value) for metric in history] == [(step, step - 0.5) for step in range(1, 7)]
        # Through the server, whose disk it is.
        previews = [file.path for file in client.list_artifacts(tracked.run_id, "images")]
        steps = [path.replace("%", "+").split("+step+")[1].split("+")[0] for path in previews if path.endswith(".png")]
        assert sorted(steps) == [str(step) for step in range(1, 7)]
        assert len(list((tmp_path / "artifacts").rglob("*.png"))) == 6
        assert client.get_run(tracked.run_id).info.status == "FINISHED"

        client.delete_run(tracked.run_id)
        with pytest.raises(SettingsError, match=r"was deleted in MLflow; restore it"):
            check_tracked(server.uri, "outages", run)
        for secret in (server.environment["MLFLOW_TRACKING_PASSWORD"], database.uri.split(":")[2].split("@")[0]):
            assert secret not in said + "".join(file.read_text() for file in Path(run.uri).rglob("*.json"))

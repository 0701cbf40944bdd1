"""What a real server refuses for good is said and passed over; what is after it arrives."""

import time
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND, PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE

from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.refusals import is_for_good
from sdo_ray.training.update_log import UpdateLog
from tests.support.mlflow_server import mlflow_server
from tests.support.updates import report
from tests.tracking.test_run import image, tracked

TOO_LONG = "x" * 300
"""MLflow takes 250 characters."""


@pytest.mark.slow
def test_a_server_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mlflow_server(tmp_path) as server:
        refused_for_good_and_passed_over(server.uri, tmp_path, capsys)


def test_a_database_refuses(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused_for_good_and_passed_over(uri, tmp_path, capsys)


def refused_for_good_and_passed_over(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One metric of two updates and one tag: the rest arrives, nobody waits, and it is said."""
    reports = [report(update, image()) for update in range(2)]
    for made in reports:
        made.groups[TOO_LONG] = 1.0
    with tracked(uri, RunDirectory(str(tmp_path / "runs"), "run")) as it:
        began = time.monotonic()
        with UpdateLog(it) as log:
            log.catch_up([*reports, report(2)])
        it.set_tags({TOO_LONG: "refused", "short": "kept"})
        assert time.monotonic() - began < 20
    client = mlflow.MlflowClient(uri)
    history = client.get_metric_history(it.run_id, "reward/mean")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 1.5), (3, 2.5)]
    found = client.get_run(it.run_id).data
    assert "score/a/mean" in found.metrics
    assert (found.tags["short"], TOO_LONG in found.tags) == ("kept", False)
    said = capsys.readouterr().out
    assert said.count(f"MLflow refuses metric groups/{TOO_LONG}, which is not sent again: ") == 1
    assert said.count(f"MLflow refuses tag {TOO_LONG}") == 1
    assert "maximum length of 250 characters" in said  # MLflow's own words
    assert "MLflow refused 3 metrics, images or tags for good" in said
    assert "takes no updates" not in said


def test_of_a_deleted_run_nothing_is_passed_over(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    it = tracked(uri, RunDirectory(str(tmp_path), "run"))
    it.client.delete_run(it.run_id)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        it.log_step(1, {"loss": 0.5})
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        it.set_tags({"stage": "done"})
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        it.log_step(1, {"loss": 0.5}, {"preview": image()})
    assert "MLflow refuses" not in capsys.readouterr().out
    it.client.restore_run(it.run_id)
    it.log_step(1, {"loss": 0.5})
    assert it.client.get_run(it.run_id).data.metrics == {"loss": 0.5}


@pytest.mark.parametrize("code", [PERMISSION_DENIED, ENDPOINT_NOT_FOUND, TEMPORARILY_UNAVAILABLE, None])
def test_what_may_end_is_not_for_good(code: int | None) -> None:
    error = ConnectionError("no route") if code is None else MlflowException("for now", error_code=code)
    assert not is_for_good(error)

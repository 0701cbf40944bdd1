"""Updates in MLflow: a database file, artifacts on disk."""

from pathlib import Path

import mlflow
import pytest

from sdo_ray.storage import RunDirectory
from sdo_ray.training.decisions import Continue
from sdo_ray.training.update_log import UpdateLog
from tests.support.updates import report
from tests.tracking.test_run import image, tracked


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path), "run")


def test_updates_are_logged_once_though_given_twice_and_by_a_resumed_run(uri: str, run: RunDirectory) -> None:
    client = mlflow.MlflowClient(uri)
    first = tracked(uri, run)
    for update in (0, 1, 1):
        assert UpdateLog(first).observe(report(update)) == Continue()
    assert client.get_run(first.run_id).info.status == "RUNNING"
    with pytest.raises(KeyboardInterrupt), first:
        raise KeyboardInterrupt
    assert client.get_run(first.run_id).info.status == "FAILED"
    with tracked(uri, run) as second:
        assert second.run_id == first.run_id
        UpdateLog(second).catch_up([report(0), report(1), report(2)])
    assert client.get_run(first.run_id).info.status == "FINISHED"
    history = client.get_metric_history(first.run_id, "reward/mean")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 1.5), (3, 2.5)]
    metrics = client.get_run(first.run_id).data.metrics
    assert metrics["score/a/mean"] == 1.0
    assert "score/b/mean" not in metrics  # no sample counted: nothing, rather than a number
    assert metrics["step_gradient_norm/003"] == 0.25
    assert metrics["samples_skipped"] == 1
    assert metrics["seconds/sampling"] == 3.0


def test_previews_are_images_with_a_step_slider(uri: str, run: RunDirectory) -> None:
    with tracked(uri, run) as it:
        UpdateLog(it).catch_up([report(0, image()), report(1), report(2, image())])
    names = [Path(file.path).name for file in mlflow.MlflowClient(uri).list_artifacts(it.run_id, "images")]
    # MLflow's slider goes by key and step in the name.
    assert {tuple(name.replace("%", "+").split("+")[:3]) for name in names} == {
        ("preview", "step", "1"),
        ("preview", "step", "3"),
    }

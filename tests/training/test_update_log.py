"""Updates in MLflow: a database file, artifacts on disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from sdo_ray.storage import RunDirectory
from sdo_ray.tracking import outbox
from sdo_ray.tracking.outbox import NotSent
from sdo_ray.training import update_log
from sdo_ray.training.decisions import Continue
from sdo_ray.training.update_log import UpdateLog
from tests.support.updates import report
from tests.tracking.test_run import image, tracked


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path), "run")


def test_an_anchor_is_no_group() -> None:
    names = update_log.numbers(replace(report(0), groups={"kl": 1.0, "anchor": 2.0}))
    assert (names["groups/kl"], names["anchor_distance"], "groups/anchor" in names) == (1.0, 2.0, False)


def test_a_reward_s_latency_and_restarts_are_logged_by_its_name() -> None:
    health = {"hpsv2": {"seconds": 0.5, "restarts": 1.0}, "quiet": {"restarts": 0.0}}
    names = update_log.numbers(replace(report(0), reward_health=health))
    assert (names["reward_seconds/hpsv2"], names["reward_restarts/hpsv2"]) == (0.5, 1.0)
    assert (names["reward_restarts/quiet"], "reward_seconds/quiet" in names) == (0.0, False)


def test_updates_are_logged_once_though_given_twice_and_by_a_resumed_run(uri: str, run: RunDirectory) -> None:
    client = mlflow.MlflowClient(uri)
    first = tracked(uri, run)
    with UpdateLog(first) as log:
        for update in (0, 1, 1):
            assert log.observe(report(update)) == Continue()
    assert client.get_run(first.run_id).info.status == "RUNNING"
    with pytest.raises(KeyboardInterrupt), first:
        raise KeyboardInterrupt
    assert client.get_run(first.run_id).info.status == "FAILED"
    with tracked(uri, run) as second, UpdateLog(second) as log:
        assert second.run_id == first.run_id
        log.catch_up([report(0), report(1), report(2)])
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
    with tracked(uri, run) as it, UpdateLog(it) as log:
        log.catch_up([report(0, image()), report(1), report(2, image())])
    names = [Path(file.path).name for file in mlflow.MlflowClient(uri).list_artifacts(it.run_id, "images")]
    # MLflow's slider goes by key and step in the name.
    assert {tuple(name.replace("%", "+").split("+")[:3]) for name in names} == {
        ("preview", "step", "1"),
        ("preview", "step", "3"),
    }


def test_an_image_whose_numbers_did_not_arrive_is_there_once(
    uri: str, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images go another way than numbers: a database may be away and the artifacts not."""
    monkeypatch.setattr(outbox, "PAUSE", 0.01)
    it = tracked(uri, run)
    log_batch, answers = it.client.log_batch, iter([False, False])

    def away(*arguments: Any, **named: Any) -> None:
        if not next(answers, True):
            raise ConnectionError("the database is away")
        log_batch(*arguments, **named)

    it.client.log_batch = away
    with it, UpdateLog(it) as log:
        log.catch_up([report(0, image()), report(1, image())])
    client = mlflow.MlflowClient(uri)
    files = [Path(file.path).name for file in client.list_artifacts(it.run_id, "images")]
    assert sorted(name.split("+")[2] for name in files if name.endswith(".png")) == ["1", "2"]
    assert [metric.step for metric in client.get_metric_history(it.run_id, "reward/mean")] == [1, 2]
    assert client.get_run(it.run_id).data.tags["mlflow.loggedImages"] == "True"


def test_what_arrived_though_its_answer_did_not_is_not_logged_again(
    uri: str, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PAUSE", 0.01)
    it = tracked(uri, run)
    log_step, answers = it.log_step, iter([False])

    def loses_an_answer(*arguments: Any) -> None:
        log_step(*arguments)
        if not next(answers, True):
            raise ConnectionError("reset by peer")

    it.log_step = loses_an_answer  # type: ignore[assignment,method-assign]
    with it, UpdateLog(it) as log:
        log.catch_up([report(0), report(1)])
    history = mlflow.MlflowClient(uri).get_metric_history(it.run_id, "reward/mean")
    assert [metric.step for metric in history] == [1, 2]


def test_a_run_that_ends_otherwise_does_not_wait_long(
    uri: str, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_log, "AT_A_FAILURE", 0.2)
    monkeypatch.setattr(update_log, "LONGEST_OUTAGE", 0.3)
    it = tracked(uri, run)

    def away(*_: Any) -> None:
        raise ConnectionError("no route")

    it.log_step = away  # type: ignore[assignment,method-assign]

    def ends(error: type[Exception] | None) -> None:
        with UpdateLog(it) as log:
            log.observe(report(0))
            if error is not None:
                raise error

    with pytest.raises(KeyError):
        ends(KeyError)
    with pytest.raises(NotSent, match="no route"):
        ends(None)

"""MLflow for real: a database file, artifacts on disk."""

import dataclasses
import io
from pathlib import Path

import mlflow
import pytest
from PIL import Image

from sdo_ray.evaluation.compare import compare
from sdo_ray.registry.recipe import Recipe
from sdo_ray.registry.registration import examples_of, register_model
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.run import TrackedRun
from sdo_ray.training.records import Spread, UpdateReport
from tests.support.aligned import PROMPTS, SAMPLING, SEED, aligned


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path), "run")


def tracked(uri: str, run: RunDirectory) -> TrackedRun:
    settings = {"training": {"updates": 3}, "rewards": {"terms": [{"name": "a"}, {"name": "b"}]}, "long": "x" * 9000}
    return TrackedRun(uri, f"experiment of {run.storage}", run, "a run", settings)


def report(update: int, preview: bytes | None = None) -> UpdateReport:
    return UpdateReport(
        update=update,
        reward=Spread(0.5 + update, 0.1),
        scores={"a": Spread(1.0, 0.0), "b": Spread(None, None)},
        gradient_norm=2.0,
        step_norms={3: 0.25},
        policy_lag=1.0,
        num_samples=7,
        num_skipped=1,
        seconds={"sampling": 3.0},
        preview=preview,
    )


def image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, format="PNG")
    return buffer.getvalue()


def test_curves_are_logged_once(uri: str, run: RunDirectory) -> None:
    client, curves = (
        mlflow.MlflowClient(uri),
        [{"mixed": 0.5, "alignment@target": 0.1}, {"mixed": 0.75, "alignment@target": 0.2}],
    )
    first = tracked(uri, run)
    first.log_curves(curves[:1], {})
    tracked(uri, run).log_curves(curves, {"reward.alignment@target": "sha"})
    history = {name: client.get_metric_history(first.run_id, name) for name in ("mixed", "alignment/target")}
    assert [(m.step, m.value) for m in history["mixed"]] == [(0, 0.5), (1, 0.75)]
    assert [(m.step, m.value) for m in history["alignment/target"]] == [(0, 0.1), (1, 0.2)]
    assert client.get_run(first.run_id).data.tags["reward.alignment/target"] == "sha"


def test_updates_are_logged_once_though_given_twice_and_by_a_resumed_run(uri: str, run: RunDirectory) -> None:
    client = mlflow.MlflowClient(uri)
    first = tracked(uri, run)
    first.log_updates([report(0), report(1)])
    first.log_updates([report(1)])
    assert client.get_run(first.run_id).info.status == "RUNNING"
    with pytest.raises(KeyboardInterrupt), first:
        raise KeyboardInterrupt
    assert client.get_run(first.run_id).info.status == "FAILED"
    with tracked(uri, run) as second:
        assert second.run_id == first.run_id
        second.log_updates([report(0), report(1), report(2)])
    assert client.get_run(first.run_id).info.status == "FINISHED"
    history = client.get_metric_history(first.run_id, "reward/mean")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 1.5), (3, 2.5)]
    metrics = client.get_run(first.run_id).data.metrics
    assert metrics["score/a/mean"] == 1.0
    assert "score/b/mean" not in metrics  # no sample counted: nothing, rather than a number
    assert metrics["step_gradient_norm/003"] == 0.25
    assert metrics["samples_skipped"] == 1
    assert metrics["seconds/sampling"] == 3.0


def test_settings_become_parameters(uri: str, run: RunDirectory) -> None:
    with tracked(uri, run) as it:
        pass
    found = mlflow.MlflowClient(uri).get_run(it.run_id)
    assert found.info.run_name == "a run"
    parameters = found.data.params
    assert parameters["training.updates"] == "3"
    assert parameters["rewards.terms.1.name"] == "b"
    assert len(parameters["long"]) == 6000


def test_previews_are_images_with_a_step_slider(uri: str, run: RunDirectory) -> None:
    with tracked(uri, run) as it:
        it.log_updates([report(0, image()), report(1), report(2, image())])
    names = [Path(file.path).name for file in mlflow.MlflowClient(uri).list_artifacts(it.run_id, "images")]
    # MLflow's slider goes by key and step in the name.
    assert {tuple(name.replace("%", "+").split("+")[:3]) for name in names} == {
        ("preview", "step", "1"),
        ("preview", "step", "3"),
    }


def test_another_server_gets_a_run_of_its_own(uri: str, run: RunDirectory, tmp_path: Path) -> None:
    with tracked(uri, run) as first:
        pass
    with tracked(f"sqlite:///{tmp_path}/other.db", run) as second:
        second.log_updates([report(0)])
    assert first.run_id != second.run_id


def test_a_comparison_with_its_files(uri: str, run: RunDirectory) -> None:
    file = run.write("before_after.png", image())
    comparison = compare("evaluator", [0.0, 1.0], [1.0, 2.0])
    with tracked(uri, run) as it:
        it.log_comparisons([comparison], [file])
    client = mlflow.MlflowClient(uri)
    metrics = client.get_run(it.run_id).data.metrics
    for part in ("base", "aligned", "low", "high"):
        assert metrics[f"heldout/evaluator/{part}"] == dataclasses.asdict(comparison)[part]
    assert [file.path for file in client.list_artifacts(it.run_id, "outcome")] == ["outcome/before_after.png"]


def test_the_result_is_registered_with_the_run(uri: str, run: RunDirectory, tiny_base: Path) -> None:
    result = aligned(tiny_base, Path(run.uri) / "result")
    recipe, examples = Recipe.of(SAMPLING, "float32", 2), examples_of(PROMPTS, SEED)
    origin = {"base_model": "tiny"}
    client = mlflow.MlflowClient(uri, uri)
    with tracked(uri, run) as it:
        it.set_tags(origin)
        assert client.get_run(it.run_id).data.tags["base_model"] == "tiny"
        arguments = {"examples": examples, "provenance": origin}
        registered = register_model(it.client, it.run_id, "tiny", result.directory, str(tiny_base), recipe, **arguments)
        assert registered == "models:/tiny/1"
    version = client.get_model_version("tiny", "1")
    assert version.tags["base_model"] == "tiny"
    assert version.run_id == it.run_id
    assert client.get_run(it.run_id).info.status == "FINISHED"


def test_no_password_is_kept_beside_the_run(uri: str, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow.MlflowClient", lambda **_: mlflow.tracking.MlflowClient(uri, uri))
    with tracked("postgresql://ann:hunter2@db/mlflow", run) as first:
        pass
    assert run.read_json(TrackedRun.FILE)["tracking_uri"] == "postgresql://db/mlflow"
    with tracked("postgresql://ann:hunter2@db/mlflow", run) as second:
        assert second.run_id == first.run_id

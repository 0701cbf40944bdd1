"""MLflow for real: a database file, artifacts on disk."""

import io
from pathlib import Path

import mlflow
import pytest
from PIL import Image

from sdo_ray.registry.recipe import Recipe
from sdo_ray.registry.registration import examples_of, register_model
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.run import FILE, TrackedRun, check_tracked
from tests.support.aligned import PROMPTS, SAMPLING, SEED, aligned


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path), "run")


def tracked(uri: str, run: RunDirectory) -> TrackedRun:
    settings = {"training": {"updates": 3}, "rewards": {"terms": [{"name": "a"}, {"name": "b"}]}, "long": "x" * 9000}
    return TrackedRun(uri, f"experiment of {run.storage}", run, "a run", settings)


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


def test_settings_become_parameters(uri: str, run: RunDirectory) -> None:
    with tracked(uri, run) as it:
        pass
    found = mlflow.MlflowClient(uri).get_run(it.run_id)
    assert found.info.run_name == "a run"
    parameters = found.data.params
    assert parameters["training.updates"] == "3"
    assert parameters["rewards.terms.1.name"] == "b"
    assert len(parameters["long"]) == 6000


def test_another_server_gets_a_run_of_its_own(uri: str, run: RunDirectory, tmp_path: Path) -> None:
    with tracked(uri, run) as first:
        pass
    with tracked(f"sqlite:///{tmp_path}/other.db", run) as second:
        second.log_step(1, {"loss": 0.5})
    assert first.run_id != second.run_id


def test_results_with_their_files(uri: str, run: RunDirectory) -> None:
    file = run.write("before_after.png", image())
    numbers = {"heldout/evaluator/base": 0.5, "heldout/m:B/low": -1.0}
    with tracked(uri, run) as it:
        it.log_results(numbers, [Path(file)])
    client = mlflow.MlflowClient(uri)
    assert client.get_run(it.run_id).data.metrics == numbers
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
    assert run.read_json(FILE)["tracking_uri"] == "postgresql://db/mlflow"
    with tracked("postgresql://ann:hunter2@db/mlflow", run) as second:
        assert second.run_id == first.run_id


def test_what_was_deleted_is_said_before_a_start(uri: str, run: RunDirectory) -> None:
    experiment = f"experiment of {run.storage}"
    with tracked(uri, run) as it:
        pass
    client = mlflow.MlflowClient(uri)
    check_tracked(uri, experiment, run)
    client.delete_run(it.run_id)
    said = (
        rf"run\.name: its MLflow run .* was deleted in MLflow; restore it, `mlflow runs restore --run-id {it.run_id}`"
    )
    with pytest.raises(SettingsError, match=said):
        check_tracked(uri, experiment, run)
    client.restore_run(it.run_id)
    check_tracked(uri, experiment, run)
    client.delete_experiment(client.get_run(it.run_id).info.experiment_id)
    with pytest.raises(
        SettingsError, match=r"tracking\.experiment: .* was deleted in MLflow; restore it, `mlflow exper"
    ):
        check_tracked(uri, experiment, run)


def test_a_run_that_is_gone_can_be_begun_anew(uri: str, run: RunDirectory) -> None:
    run.write_json(FILE, {"tracking_uri": uri, "run_id": "0" * 32})
    with pytest.raises(SettingsError, match=r"its MLflow run 0+ is gone; remove .*mlflow\.json to begin another"):
        check_tracked(uri, "any", run)


def test_names_that_mlflow_does_not_take(uri: str, run: RunDirectory) -> None:
    settings = {"runtime_env": {"env_vars": {"A(B)": "x"}}}
    with TrackedRun(uri, "odd names", run, "a run", settings) as it:
        it.log_step(1, {"score/source_similarity@source": 0.5})
        it.log_results({"score/ocr@words": 0.25}, [])
    logged = mlflow.MlflowClient(uri).get_run(it.run_id).data
    assert logged.params == {"runtime_env.env_vars.A/B": "x"}
    assert logged.metrics == {"score/source_similarity/source": 0.5, "score/ocr/words": 0.25}

"""The distributed run: the rows of a plain loop, each once, whatever dies meanwhile."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageChops

from rewards.scoring import score_with_gradient
from sdo_ray.config.loading import load_settings
from sdo_ray.config.optimize import OptimizeSettings
from sdo_ray.input_optimization.loop import optimize_batch
from sdo_ray.input_optimization.records import final_variable, results_table
from sdo_ray.input_optimization.rows import batches
from sdo_ray.media.picture import open_image
from sdo_ray.models.load import load_pipeline
from tests.support.ink import Ink
from tests.support.runs import AlignProcess

INK = "tests.support.ink:Ink"


def tiny_settings(directory: Path, base: Path, seconds: float = 0.0) -> Path:
    """Six rows, two at once, three iterations each."""
    pq.write_table(pa.table({"prompt": list("abcdef"), "target": list("uvwxyz")}), directory / "rows.parquet")
    settings: dict[str, Any] = {
        "run": {"name": "tiny", "storage": str(directory / "runs"), "seed": 3},
        "model": {"base": str(base)},
        "rows": {"path": "rows.parquet"},
        "optimization": {"variable": "latents", "iterations": 3, "learning_rate": 0.05, "keep_norm": True},
        "rewards": {
            "terms": [
                {"name": INK, "text": "target", "options": {"seconds": seconds}},
                {"name": "jpeg_compressibility", "weight": 0.0},
            ]
        },
        "sampling": {"num_inference_steps": 3, "guidance_scale": 2.0},
        "samplers": {"count": 1, "batch_size": 2},
        "tracking": {"experiment": "tiny"},
    }
    path = directory / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def expected(settings: OptimizeSettings) -> pa.Table:
    """The same rows without Ray."""

    def rewards(images: Any, texts: Any, seeds: Any) -> Any:
        scores, gradients = score_with_gradient(Ink(), images, list(texts[f"{INK}@target"]))
        return {f"{INK}@target": scores}, {f"{INK}@target": gradients}

    pipeline = load_pipeline(settings.model.base)
    work = batches(settings.texts(), settings.samplers.batch_size)
    return pa.concat_tables(
        results_table(optimize_batch(pipeline, batch, settings.optimizer_config(), rewards)) for batch in work
    )


@pytest.mark.slow
def test_killed_resumed_and_shown_again(tiny_base: Path, tmp_path: Path) -> None:
    path = tiny_settings(tmp_path, tiny_base, seconds=0.3)
    with AlignProcess(str(path), command="optimize") as run:
        run.until("rows 2/6")  # and then the driver with its whole cluster is killed
    first = tmp_path / "runs/tiny/rows/00000000.parquet"
    kept = first.stat().st_mtime_ns
    assert not (tmp_path / "runs/tiny/outcome.json").exists()

    with AlignProcess(str(path), command="optimize") as again:
        again.until("6 rows, ")
        again.kill("MapWorker(MapBatches(RowOptimizer))")
        again.until("rows 4/6")
        again.kill("RewardActor")
        said = again.finish()
    assert "rows 2/6" not in said
    assert first.stat().st_mtime_ns == kept, "finished rows are not redone"
    assert len(said.splitlines()) < 30, said

    settings = load_settings(OptimizeSettings, path)
    results = pq.read_table(tmp_path / "runs/tiny/rows.parquet")
    plain = expected(settings)
    assert results["row"].to_pylist() == list(range(6))
    same = [name for name in plain.column_names if name != "variable"]
    assert results.select(same).equals(plain.select(same)), "who dies meanwhile makes no difference to the bit"
    assert all(max(mixed) > mixed[0] for mixed in results["mixed"].to_pylist())

    # The same command again shows the outcome.
    with AlignProcess(str(path), command="optimize") as shown:
        said = shown.finish()
    assert "tiny is complete" in said
    assert f"{INK}@target" in said
    assert first.stat().st_mtime_ns == kept

    _mlflow_has_the_curves(tmp_path)
    _plain_diffusers_draws_the_final_images(results, tiny_base)
    assert Image.open(tmp_path / "runs/tiny/before_after.png").size[1] > 2 * 160


def _mlflow_has_the_curves(directory: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{directory}/runs/mlflow.db")
    run_id = json.loads((directory / "runs/tiny/mlflow.json").read_text())["run_id"]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run_id, "mixed")] == [0, 1, 2, 3]
    assert {file.path for file in client.list_artifacts(run_id, "outcome")} == {
        "outcome/rows.parquet",
        "outcome/before_after.png",
    }
    assert "base_model_sha256" in client.get_run(run_id).data.tags


def _plain_diffusers_draws_the_final_images(results: pa.Table, base: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    for row in results.to_pylist()[:2]:
        latents = final_variable(row)[None]
        image = pipeline(row["text.prompt"], latents=latents, num_inference_steps=3, guidance_scale=2.0).images[0]
        difference = ImageChops.difference(image, open_image(row["final_image"]))
        # alone, not in a batch of two
        assert max(high for _, high in difference.getextrema()) <= 1  # type: ignore[misc]


@pytest.mark.slow
def test_a_broken_reward_ends_the_run_with_its_cause(tiny_base: Path, tmp_path: Path) -> None:
    path = tiny_settings(tmp_path, tiny_base)
    with AlignProcess(str(path), "--set", "rewards.terms.0.name=tests.support.ink:Broken",
                      "--set", "rewards.terms.0.options={}", command="optimize") as run:  # fmt: skip
        said = run.finish(code=1)
    assert "ValueError: this reward cannot score" in said
    assert "the same command goes on" in said
    assert "Traceback" not in said, said


def test_changed_rows_are_refused(tiny_base: Path, tmp_path: Path, capsys) -> None:
    from pipelines.optimize import main
    from sdo_ray.config.run import keep_settings, open_run
    from sdo_ray.input_optimization.results import Parts

    path = tiny_settings(tmp_path, tiny_base)
    settings = load_settings(OptimizeSettings, path)
    run = open_run(settings)
    keep_settings(run, settings)
    part = batches(settings.texts(), 2)[0].to_arrow()
    Parts(run).add(part)
    pq.write_table(pa.table({"prompt": list("abcdeX"), "target": list("uvwxyz")}), tmp_path / "rows.parquet")
    Parts(run).missing(batches(settings.texts(), 2))  # of rows that are done, none has changed
    pq.write_table(pa.table({"prompt": list("aXcdef"), "target": list("uvwxyz")}), tmp_path / "rows.parquet")
    assert main([str(path)]) == 2
    assert "rows: from row 0 on they are not those that this run began with" in capsys.readouterr().err

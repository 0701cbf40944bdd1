"""`sdo evaluate`: the images are those of plain diffusers, whatever dies; and what cannot work is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import ImageChops

from pipelines.evaluate import main
from sdo_ray.evaluation.result import read_evaluation
from sdo_ray.media.picture import open_image
from sdo_ray.models.trained.lora import save_lora
from sdo_ray.seeds import generator
from sdo_ray.storage import RunDirectory
from tests.models.adapters import LORA, trained_weights
from tests.support.evaluations import image
from tests.support.ink import Ink
from tests.support.runs import AlignProcess

PROMPTS = list("abcdefg")


def evaluate_settings(directory: Path, base: Path, **sections: Any) -> Path:
    """A settings file for an evaluation in `directory`; `sections` change it."""
    pq.write_table(pa.table({"prompt": PROMPTS, "category": ["x", "y"] * 3 + ["x"]}), directory / "prompts.parquet")
    pq.write_table(pa.table({"image": [image(c) for c in ("red", "blue", "green")]}), directory / "real.parquet")
    adapter = directory / "adapter"
    if not adapter.exists():
        save_lora(str(base), LORA, trained_weights(base), adapter)
    settings = {
        "run": {"name": "compare", "storage": str(directory / "runs"), "seed": 3},
        "models": {"base": str(base), "candidate": {"adapter": str(adapter)}},
        "prompts": {"heldout": "prompts.parquet", "num_prompts": 5, "images_per_prompt": 2},
        "sampling": {"num_inference_steps": 3, "guidance_scale": 2.0},
        "rewards": [{"name": "tests.support.ink:Ink"}, {"name": "tests.support.ink:Smoothness"}],
        "features": {"name": "tests.support.ink:MeanColours"},
        "reference": {"path": "real.parquet"},
        "samplers": {"count": 2, "batch_size": 2},
        "tracking": {"experiment": "tiny"},
    } | sections
    path = directory / "evaluate.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def whole(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole evaluation; returns its directory."""
    directory = tmp_path_factory.mktemp("whole")
    with AlignProcess(str(evaluate_settings(directory, tiny_base)), command="evaluate") as run:
        (directory / "output.txt").write_text(run.finish())
    return directory


def rows(directory: Path) -> list[dict[str, Any]]:
    return pq.read_table(directory / "runs/compare/pictures.parquet").to_pylist()


def test_the_images_are_those_of_plain_diffusers(whole: Path, tiny_base: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    for role in ("base", "candidate"):
        if role == "candidate":
            pipeline.load_lora_weights(whole / "adapter")
        for first in range(0, 10, 2):
            some = rows(whole)[first : first + 2]
            expected = pipeline(
                prompt=[row["prompt"] for row in some],
                generator=[generator(3, "evaluation noise", row["index"]) for row in some],
                num_inference_steps=3,
                guidance_scale=2.0,
            ).images
            for row, drawn in zip(some, expected, strict=True):
                assert ImageChops.difference(drawn, open_image(row[f"{role}.picture"])).getbbox() is None


def test_every_image_has_every_metric(whole: Path) -> None:
    found = rows(whole)
    assert [row["index"] for row in found] == list(range(10))
    assert [row["prompt"] for row in found[:5]] == [row["prompt"] for row in found[5:]]
    assert {row["category"] for row in found} == {"x", "y"}
    evaluation = read_evaluation(RunDirectory(str(whole / "runs"), "compare"))
    assert evaluation is not None
    assert evaluation.metrics == (
        *("tests.support.ink:Ink", "tests.support.ink:Smoothness"),
        *("diversity", "distance_from_base", "pixel_distance_from_base"),
    )
    for row in found:
        pixels = torch.from_numpy(np.array(open_image(row["candidate.picture"]))).permute(2, 0, 1)[None] / 255
        assert row["candidate.tests.support.ink:Ink"] == pytest.approx(Ink()(pixels, []).item(), abs=1 / 255)
        assert row["candidate.distance_from_base"] > 0 == row["base.distance_from_base"]
    sets = evaluation.set_metrics
    assert {name: sorted(values) for name, values in sets.items()} == {
        "frechet_to_base": ["candidate"],
        "frechet_to_reference": ["base", "candidate"],
        "seconds_per_image": ["base", "candidate"],
    }
    assert min(value for values in sets.values() for value in values.values()) > 0
    assert evaluation.models["candidate"].endswith(f" + {whole}/adapter")
    assert evaluation.details["reference_images"] == 3
    assert {c["category"] for c in evaluation.details["comparisons"]} == {None, "x", "y"}
    json.loads((whole / "runs/compare/evaluation.json").read_text(), parse_constant=pytest.fail)


def test_what_it_leaves(whole: Path) -> None:
    files = {path.name for path in (whole / "runs/compare").iterdir()}
    assert files == {
        *("pictures.parquet", "evaluation.json", "report.html"),
        *("settings.json", "models.json", "mlflow.json", "driver.lock", "state.json"),
    }
    report = (whole / "runs/compare/report.html").read_text()
    assert report.count("<img ") == 20
    output = (whole / "output.txt").read_text()
    assert "20 images, 0 of them there already" in output
    assert f"report  {whole}/runs/compare/report.html" in output
    assert len(output.splitlines()) < 40, output


def test_mlflow_has_numbers_and_files(whole: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{whole}/runs/mlflow.db")
    run_id = json.loads((whole / "runs/compare/mlflow.json").read_text())["run_id"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["sampling.num_inference_steps"] == "3"
    assert run.data.metrics["candidate/diversity/mean"] > 0
    assert {
        "candidate/frechet_to_base",
        "candidate/distance_from_base/difference_to_base_low",
    } <= run.data.metrics.keys()
    names = {Path(file.path).name for file in client.list_artifacts(run_id, "outcome")}
    assert names == {"pictures.parquet", "evaluation.json", "report.html"}


def test_again_shows_the_outcome_and_starts_nothing(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (whole / "runs/compare/evaluation.json").read_bytes()
    assert main([str(whole / "evaluate.yaml")]) == 0
    said = capsys.readouterr().out
    assert "compare is complete" in said
    assert "frechet_to_reference" in said
    assert not ray.is_initialized()
    assert (whole / "runs/compare/evaluation.json").read_bytes() == before


@pytest.mark.slow
def test_goes_on_after_everything_died_and_only_with_the_same_models(
    whole: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = [{"name": "tests.support.ink:Ink", "options": {"seconds": 2.0}}, {"name": "tests.support.ink:Smoothness"}]
    settings = str(evaluate_settings(tmp_path, tiny_base, rewards=slow))
    with AlignProcess(settings, command="evaluate") as run:
        run.until("images 4/20")
        run.kill("MapWorker(MapBatches(ImageMaker))")  # its block is made again
        run.until("images 12/20")
    adapter = tmp_path / "adapter"
    shutil.move(adapter, tmp_path / "kept")
    save_lora(str(tiny_base), LORA, trained_weights(tiny_base, seed=9), adapter)
    assert main([settings]) == 2
    assert "models.candidate: the evaluation was started with" in capsys.readouterr().err
    shutil.rmtree(adapter)
    shutil.move(tmp_path / "kept", adapter)
    with AlignProcess(settings, command="evaluate") as again:
        output = again.finish()
    already = int(output.partition(" of them there already")[0].rpartition(" ")[2])
    assert already >= 12
    assert f"images {already}/20" not in output
    for row, expected in zip(rows(tmp_path), rows(whole), strict=True):
        assert row == expected


@pytest.mark.slow
def test_a_broken_reward_ends_it_with_its_cause_and_keeps_the_images(tiny_base: Path, tmp_path: Path) -> None:
    broken = [{"name": "tests.support.ink:Ink"}, {"name": "tests.support.ink:Broken"}]
    settings = str(evaluate_settings(tmp_path, tiny_base, rewards=broken, features=None, reference=None))
    with AlignProcess(settings, command="evaluate") as run:
        output = run.finish(code=1)
    assert "sdo evaluate stopped: ValueError: this reward cannot score" in output
    assert "the same command goes on" in output
    assert output.count("Traceback") <= 1, output
    assert not (tmp_path / "runs/compare/evaluation.json").exists()


Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database file, which MLflow takes seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def refuse(tiny_base: Path, tmp_path: Path, mlflow_uri: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> Refuse:
    """Runs `sdo evaluate` with `--set` for each argument; it must refuse. Returns what it said."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    settings = evaluate_settings(tmp_path, tiny_base)

    def run(*overrides: str) -> str:
        assert main([str(settings), *(part for override in overrides for part in ("--set", override))]) == 2
        assert not ray.is_initialized()
        assert not (tmp_path / "runs/compare").exists()
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("prompts.num_prompts=8", "prompts.num_prompts: got 8, but"),
        ("prompts.heldout=nowhere.parquet", "prompts.heldout:"),
        ("prompts.category=colour", "has no column 'colour'"),
        ("rewards=[{name: nothing}]", "rewards.0.name: there is no reward 'nothing'"),
        (
            "rewards=[{name: 'tests.support.ink:Ink'}, {name: 'tests.support.ink:Ink'}]",
            "is named 2 times; name it once",
        ),
        ("features.name=nothing", "features.name: there is no 'nothing'"),
        ("features=null", "reference: given, but features are null"),
        ("reference.path=nowhere", "reference.path: 'nowhere' cannot be read"),
        ("reference.column=photo", "reference.column:"),
        ("models.candidate=nowhere/at/all", "models.candidate: 'nowhere/at/all' is no directory here and no hub id"),
        ("models.candidate=zoo://nothing", "models.candidate: got 'zoo://nothing'; the zoo has zoo://emoji"),
        ("models.candidate.adapter=nowhere", "models.candidate: 'nowhere' has no pytorch_lora_weights.safetensors"),
        ("models.champion={}", "models.champion:"),
        ("models.base={adapter: adapter}", "models:"),
        (
            "models.champion=models:/nobody@champion",
            "models.champion: 'models:/nobody@champion' is not in the registry",
        ),
        ("models.champion=models:/nobody", "models.champion: got 'models:/nobody'; a registered model is"),
        ("sampling.options={volume: 3}", "sampling.options: StableDiffusionPipeline takes no volume"),
        ("report.image_size=1024", "report.image_size:"),
        ("samplers.counts=2", "did you mean 'count'?"),
    ],
)
def test_refuses(refuse: Refuse, override: str, said: str) -> None:
    assert said in refuse(override)


def test_says_all_that_is_wrong_at_once(refuse: Refuse) -> None:
    said = refuse("prompts.num_prompts=8", "features.name=nothing", "rewards=[{name: nothing}]")
    assert len([line for line in said.splitlines() if line.startswith("  - ")]) == 3
    said = refuse("models.base=zoo://nothing", "models.candidate.adapter=nowhere", "models.champion=nowhere/at/all")
    assert len([line for line in said.splitlines() if line.startswith("  - ")]) == 3


def test_refuses_a_run_that_is_not_finished(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half/settings.json").write_text("{}")
    assert "models.candidate: 'half' is a run of `sdo align` that is not finished" in refuse("models.candidate=half")

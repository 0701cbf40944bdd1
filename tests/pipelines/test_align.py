"""The distributed run: the same mathematics as a plain loop, and the same result whatever dies."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from peft import LoraConfig

from sdo_ray import differentiable_sample, make_plan
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.media.picture import open_image
from sdo_ray.models.policy import initial_policy
from sdo_ray.prompts.schedule import schedule
from sdo_ray.registry.history import history_of_run
from sdo_ray.seeds import derive_seed, generator
from sdo_ray.storage import RunDirectory
from tests.support import goes_down
from tests.support.ink import Ink, Redness
from tests.support.mlflow_server import mlflow_server
from tests.support.ports import free_port
from tests.support.runs import AlignProcess, final_adapter, tiny_settings


def slow(seconds: float) -> dict[str, Any]:
    """The rewards of `tiny_settings`, so many seconds a call, with time to break something between two updates."""
    return {
        "terms": [
            {"name": "tests.support.ink:Ink", "weight": 1.0, "options": {"seconds": seconds}},
            {"name": "tests.support.ink:Redness", "weight": 0.5, "cap": 1.0},
            {"name": "jpeg_compressibility", "weight": 0.0},
        ]
    }


def plain_loop(settings: AlignSettings, prompts: list[str]) -> dict[str, torch.Tensor]:
    """Reward ascent as one would write it without Ray, DeepSpeed or actors: autograd from the reward to the adapter."""
    lora, training = settings.model.lora, settings.training
    pipeline = StableDiffusionPipeline.from_pretrained(settings.model.base, safety_checker=None)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False)
    pipeline.unet.add_adapter(LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets), "aligned")
    parameters = {f"unet.{name}": p for name, p in pipeline.unet.named_parameters() if p.requires_grad}
    start = initial_policy(settings.model, derive_seed(settings.run.seed, "adapter", 0))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(start[name])
    optimizer = torch.optim.AdamW(parameters.values(), lr=training.learning_rate, weight_decay=0.0)
    blocks = schedule(
        prompts,
        seed=settings.run.seed,
        batch_size=training.batch_size,
        sampler_batch_size=settings.samplers.batch_size,
        start=0,
        stop=training.updates,
    )
    for _ in range(training.updates):
        optimizer.zero_grad()
        for _ in range(training.batch_size // settings.samplers.batch_size):
            [batch] = next(blocks).to_pylist()
            rows = batch["rows"]
            plan = make_plan("sdo", 4, generator=generator(settings.run.seed, "plan", rows[0]), K=1)
            images = differentiable_sample(
                pipeline,
                plan,
                prompt=batch["prompts"],
                generator=[generator(settings.run.seed, "noise", row) for row in rows],
                num_inference_steps=4,
                guidance_scale=2.0,
            )
            reward = Ink()(images, []) + 0.5 * Redness()(images, []).clamp(max=1.0)
            (-reward.sum() / training.batch_size).backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), training.max_grad_norm)
        optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


@pytest.fixture(scope="module")
def unbroken(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with policy lag 0, two samplers and two trainers; returns its directory."""
    directory = tmp_path_factory.mktemp("unbroken")
    with AlignProcess(str(tiny_settings(directory, tiny_base, tracking={"register_as": "tiny"}))) as run:
        output = run.finish()
    (directory / "output.txt").write_text(output)
    return directory


def assert_same_adapter(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(
            a[name],
            b[name],
            rtol=0,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",  # type: ignore[misc]
        )


def test_equals_a_plain_loop(unbroken: Path) -> None:
    settings = load_settings(AlignSettings, unbroken / "settings.yaml")
    expected = plain_loop(settings, list("abcdefg"))
    trained = final_adapter(unbroken)
    start = initial_policy(settings.model, derive_seed(3, "adapter", 0))
    moved = max((trained[name] - start[name]).abs().max().item() for name in start)
    assert moved > 0.03  # six steps of 0.01: the comparison below is of something
    # Sums are made in another order, and Adam divides by the size of what may be nearly zero.
    assert_same_adapter(expected, trained, tolerance=1e-4)


def test_output_is_for_people(unbroken: Path) -> None:
    output = (unbroken / "output.txt").read_text()
    updates = [line for line in output.splitlines() if line.startswith("update ")]
    assert len(updates) == 6
    assert all("reward" in line and "left" in line and len(line) < 200 for line in updates)
    assert len(output.splitlines()) < 40, output
    assert (unbroken / "runs/tiny/before_after.png").stat().st_size > 0


def test_again_shows_the_outcome_and_trains_nothing(unbroken: Path) -> None:
    before = final_adapter(unbroken)
    with AlignProcess(str(unbroken / "settings.yaml")) as run:
        output = run.finish()
    assert "complete" in output
    assert "update " not in output
    assert_same_adapter(before, final_adapter(unbroken), tolerance=0)


def test_other_settings_under_the_same_name_are_refused(unbroken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.align import main

    assert main([str(unbroken / "settings.yaml"), "--set", "training.learning_rate=0.5"]) == 2
    said = capsys.readouterr().err
    assert "training.learning_rate" in said
    assert "0.01" in said
    assert "0.5" in said


def test_mlflow_has_every_update_once(unbroken: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{unbroken}/runs/mlflow.db")
    run_id = json.loads((unbroken / "runs/tiny/mlflow.json").read_text())["run_id"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run_id, "reward/mean")] == [1, 2, 3, 4, 5, 6]
    assert run.data.params["training.learning_rate"] == "0.01"
    assert {"seconds/sampling", "seconds/rewarding", "seconds/backward", "seconds/waiting"} <= run.data.metrics.keys()
    assert run.data.metrics["policy_lag"] == 0
    assert len(client.list_artifacts(run_id, "images")) >= 3  # previews at updates 1, 4 and 6


def test_an_evaluation_knows_how_it_was_trained(unbroken: Path) -> None:
    history = history_of_run(RunDirectory(str(unbroken / "runs"), "tiny"))
    assert history.learned == {"tests.support.ink:Ink", "tests.support.ink:Redness"}
    assert history.curves.keys() == {"reward", "jpeg_compressibility", *history.learned}
    assert all([update for update, _, _ in curve] == [1, 2, 3, 4, 5, 6] for curve in history.curves.values())


def test_the_adapter_loads_in_plain_diffusers(unbroken: Path, tiny_base: Path) -> None:
    import pyarrow.parquet as pq
    from PIL import ImageChops

    from sdo_ray.media.picture import open_image

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipeline.load_lora_weights(unbroken / "runs/tiny/adapter")
    rows = pq.read_table(unbroken / "runs/tiny/heldout.parquet").to_pylist()
    images = pipeline(
        prompt=[row["prompt"] for row in rows],
        generator=[generator(3, "evaluation noise", row["index"]) for row in rows],
        num_inference_steps=4,
        guidance_scale=2.0,
    ).images
    for image, row in zip(images, rows, strict=True):
        assert ImageChops.difference(image, open_image(row["aligned"])).getbbox() is None
        assert ImageChops.difference(image, open_image(row["base"])).getbbox() is not None


def test_the_registered_model_draws_the_images_of_the_comparison(unbroken: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{unbroken}/runs/mlflow.db")
    mlflow.set_registry_uri(f"sqlite:///{unbroken}/runs/mlflow.db")
    compared = pq.read_table(unbroken / "runs/tiny/heldout.parquet").to_pydict()
    model = mlflow.pyfunc.load_model("models:/tiny/1")
    assert [row["prompt"] for row in model.input_example] == compared["prompt"]
    assert [open_image(png) for png in model.predict(model.input_example)["picture"]] == [
        open_image(png) for png in compared["aligned"]
    ]


def test_survives_dead_samplers_rewards_and_trainers(unbroken: Path, tiny_base: Path, tmp_path: Path) -> None:
    with AlignProcess(str(tiny_settings(tmp_path, tiny_base, rewards=slow(0.4)))) as run:
        run.until("update 1/6")
        run.kill("MapWorker(MapBatches(Sampler))")
        run.until("update 2/6")
        run.kill("RewardActor")
        run.until("update 3/6")
        run.kill("RayTrainWorker")
        run.finish()
    assert_same_adapter(final_adapter(unbroken), final_adapter(tmp_path), tolerance=0)


@pytest.mark.slow
def test_resumes_after_everything_died(unbroken: Path, tiny_base: Path, tmp_path: Path) -> None:
    settings = str(tiny_settings(tmp_path, tiny_base, rewards=slow(1.0)))
    with AlignProcess(settings) as run:
        # Ray Train registers the checkpoint of update 2 within seconds, not at once.
        run.until("update 5/6")
    with AlignProcess(settings) as again:
        output = again.finish()
    assert "update 1/6" not in output
    assert_same_adapter(final_adapter(unbroken), final_adapter(tmp_path), tolerance=0)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    run_id = json.loads((tmp_path / "runs/tiny/mlflow.json").read_text())["run_id"]
    assert [m.step for m in client.get_metric_history(run_id, "reward/mean")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_run_that_died_before_it_wrote_its_outcome_registers_no_second_version(
    tiny_base: Path, tmp_path: Path
) -> None:
    settings = str(
        tiny_settings(
            tmp_path,
            tiny_base,
            training={"updates": 1, "checkpoint_every": 1},
            trainers={"count": 1},
            tracking={"register_as": "tiny"},
        )
    )
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db", f"sqlite:///{tmp_path}/runs/mlflow.db")
    with AlignProcess(settings, command="tests.support.goes_down") as run:
        run.until(goes_down.SAID)
    assert [found.version for found in client.search_model_versions("name = 'tiny'")] == [1]
    assert not (tmp_path / "runs/tiny/outcome.json").exists()
    with AlignProcess(settings) as again:
        output = again.finish()
    assert [found.version for found in client.search_model_versions("name = 'tiny'")] == [1]
    assert "models:/tiny/1" in output
    run_id = json.loads((tmp_path / "runs/tiny/mlflow.json").read_text())["run_id"]
    assert len(client.get_run(run_id).outputs.model_outputs) == 1


@pytest.mark.slow
def test_mlflow_that_is_away_for_a_while_stops_no_run_and_misses_nothing(tiny_base: Path, tmp_path: Path) -> None:
    settings = str(tiny_settings(tmp_path, tiny_base, rewards=slow(1.0), trainers={"count": 1}))
    server, port = tmp_path / "server", free_port()
    server.mkdir()
    with mlflow_server(server, port=port) as up:
        environment = up.environment | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
        run = AlignProcess(settings, environment=environment)
        run.until("update 3/6")
    with run:
        run.until("update 6/6")
        with mlflow_server(server, port=port):
            output = run.finish()
    assert "MLflow takes no updates: " in output
    assert "MLflow takes updates again" in output
    assert "Traceback" not in output
    client = mlflow.MlflowClient(f"sqlite:///{server}/mlflow.db")
    run_id = json.loads((tmp_path / "runs/tiny/mlflow.json").read_text())["run_id"]
    assert [m.step for m in client.get_metric_history(run_id, "reward/mean")] == [1, 2, 3, 4, 5, 6]
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_a_whole_denoiser_is_trained_on_the_trainers(tiny_base: Path, tmp_path: Path) -> None:
    settings = tiny_settings(
        tmp_path,
        tiny_base,
        model={"train": "full", "lora": None},
        training={"updates": 2, "backward": "trainer", "learning_rate": 1e-3},
        trainers={"zero_stage": 3},
    )
    with AlignProcess(str(settings)) as run:
        run.finish()
    trained = final_adapter(tmp_path)
    start = initial_policy(load_settings(AlignSettings, settings).model, 0)
    assert trained.keys() == start.keys()
    assert sum(not torch.equal(trained[name], start[name]) for name in start) > 0.9 * len(start)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "runs/tiny/model", safety_checker=None)
    for name, parameter in pipeline.unet.named_parameters():
        assert torch.equal(parameter, trained[f"unet.{name}"]), name


@pytest.mark.slow
def test_a_broken_reward_ends_the_run_with_its_cause(tiny_base: Path, tmp_path: Path) -> None:
    terms, untried = {"terms": [{"name": "tests.support.ink:Broken"}]}, {"dry_batch": False}
    path = tiny_settings(tmp_path, tiny_base, rewards=terms, trainers={"count": 1}, training=untried)
    with AlignProcess(str(path)) as run:
        output = run.finish(code=1)
    assert "ValueError: this reward cannot score" in output
    assert "the same command goes on" in output
    assert output.count("Traceback") <= 1, output

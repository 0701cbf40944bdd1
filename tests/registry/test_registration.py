"""A registered model is complete: plain MLflow and plain diffusers draw the images it was evaluated by."""

import ast
import io
import json
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from sdo_ray.registry.registration import SERVED_BY, requirements
from sdo_ray.registry.versions import adapter_beside, find_version, resolve_model
from sdo_ray.settings import SettingsError
from tests.support.aligned import BATCH, PROMPTS, SAMPLING, Aligned, aligned, rows
from tests.support.hub import COMMIT, cached_hub_model

ROOT = Path(__file__).parents[2]

DIES = """
import os, signal, sys
from pathlib import Path
import mlflow
from tests.support.aligned import aligned

uri, run_id, base, directory = sys.argv[1:]
mlflow.MlflowClient.update_model_version = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
aligned(base, Path(directory, "died")).register(uri, "once", run_id=run_id)
"""
"""Makes the same model in another process, which is killed between the version and its description."""


@pytest.fixture(scope="module")
def lora(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Aligned:
    return aligned(tiny_base, tmp_path_factory.mktemp("lora") / "out")


@pytest.fixture(scope="module")
def reference(lora: Aligned, uri: str) -> str:
    return lora.register(uri, "lora")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def served(reference: str, given: Any, **options: Any) -> list[np.ndarray]:
    """Images that MLflow's own loading gives."""
    answer = mlflow.pyfunc.load_model(reference).predict(given, **options)
    return [np.asarray(Image.open(io.BytesIO(png))) for png in answer["picture"]]


def downloaded(reference: str, directory: Path) -> Path:
    return Path(mlflow.artifacts.download_artifacts(reference, dst_path=str(directory)))


def assert_same(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    assert len(a) == len(b) > 0
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_registering_does_not_load_the_model(lora: Aligned, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", None)
    assert lora.register(uri, "unloaded") == "models:/unloaded/1"
    run_id = find_version("models:/unloaded/1", uri).run_id
    [logged] = mlflow.MlflowClient(uri, uri).get_run(run_id).outputs.model_outputs
    assert mlflow.get_logged_model(logged.model_id).status == "READY"


def test_mlflow_draws_the_evaluated_images(lora: Aligned, reference: str) -> None:
    assert len({image.tobytes() for image in lora.images}) == len(PROMPTS)
    assert_same(served(reference, rows()), lora.images)


def test_diffusers_draws_the_evaluated_images(lora: Aligned, reference: str, tmp_path: Path) -> None:
    files = downloaded(f"{reference}/artifacts", tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(files / "pipeline")
    pipeline.load_lora_weights(files / "adapter")
    recipe = json.loads((files / "recipe.json").read_text())
    assert recipe["num_inference_steps"] == 3
    assert recipe["options"] == {"negative_prompt": "z"}
    images = []
    for first in range(0, len(PROMPTS), BATCH):
        some = rows()[first : first + BATCH]
        images += pipeline(
            [row["prompt"] for row in some],
            generator=[torch.Generator("cpu").manual_seed(row["seed"]) for row in some],
            num_inference_steps=3,
            guidance_scale=2.0,
            negative_prompt=["z"] * len(some),
        ).images
    assert_same([np.asarray(image) for image in images], lora.images)


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "bfloat16"},
        {"dtype": "float16"},  # whose decoder is float32, as it would overflow
        {"dtype": "bfloat16", "dtypes": {"vae": "float32"}},
        {"dtypes": {"unet": "bfloat16"}},
        {"train": "full"},
        {"train": "diffit"},
    ],
    ids=str,
)
def test_half_precision_and_other_ways_of_training(
    tiny_base: Path, tmp_path: Path, uri: str, changes: dict[str, Any]
) -> None:
    it = aligned(tiny_base, tmp_path / "out", **changes)
    reference = it.register(uri, "others")
    assert_same(served(reference, rows()), it.images)
    files = downloaded(f"{reference}/artifacts", tmp_path / "files")
    assert (files / "adapter").is_dir() == ("train" not in changes)


def test_it_holds_weights_configurations_and_one_readable_program(reference: str, tmp_path: Path) -> None:
    files = downloaded(reference, tmp_path)
    names = {file.relative_to(files).as_posix() for file in files.rglob("*") if file.is_file()}
    own = {name for name in names if "/" not in name}
    assert own == {
        *("MLmodel", "pyfunc_model.py", "requirements.txt", "conda.yaml", "python_env.yaml"),
        *("input_example.json", "serving_input_example.json", "registered_model_meta"),
    }
    assert {Path(name).suffix for name in names - own} == {".json", ".safetensors"}
    assert "artifacts/pipeline/unet/diffusion_pytorch_model.safetensors" in names
    assert "artifacts/adapter/pytorch_lora_weights.safetensors" in names
    assert (files / "pyfunc_model.py").read_text() == SERVED_BY.read_text()


def test_the_program_needs_nothing_of_this_package() -> None:
    """But for the steps of a recipe that has cheap ones, which are this package's."""
    program = ast.parse(SERVED_BY.read_text())
    program.body = [part for part in program.body if getattr(part, "name", None) != "_images"]
    imported = set()
    for node in ast.walk(program):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            imported.add(node.module.partition(".")[0])
    assert imported - sys.stdlib_module_names == {"mlflow", "torch", "diffusers", "pandas", "PIL"}


def test_requirements_are_pinned_to_public_versions(reference: str, tmp_path: Path) -> None:
    pinned = (downloaded(reference, tmp_path) / "requirements.txt").read_text().split()
    assert pinned == requirements()
    assert f"diffusers=={version('diffusers')}" in pinned
    assert f"torch=={version('torch').partition('+')[0]}" in pinned
    assert all("==" in line and "+" not in line for line in pinned)


def test_signature_and_example(lora: Aligned, reference: str) -> None:
    model = mlflow.pyfunc.load_model(reference)
    signature = model.metadata.signature
    assert signature.inputs.input_names() == ["prompt", "seed"]
    assert signature.inputs.required_input_names() == ["prompt"]
    assert {param.name: param.default for param in signature.params} == {
        "num_inference_steps": 3,
        "guidance_scale": 2.0,
        "batch_size": 2,
    }
    # The example is of images that the model was evaluated by.
    assert model.input_example == rows()[:4]
    assert_same(served(reference, model.input_example), lora.images[:4])


def test_parameters_of_the_call(lora: Aligned, reference: str) -> None:
    given = rows()[:2]
    assert_same(served(reference, given, params={"num_inference_steps": 3}), lora.images[:2])
    for change in ({"num_inference_steps": 1}, {"guidance_scale": 7.0}):
        assert not np.array_equal(served(reference, given, params=change)[0], lora.images[0])


def test_without_a_seed_one_is_drawn_and_said(reference: str) -> None:
    model = mlflow.pyfunc.load_model(reference)
    first = model.predict([{"prompt": "a"}, {"prompt": "a"}])
    assert first["picture"][0] != first["picture"][1]
    again = model.predict(first[["prompt", "seed"]])
    assert list(again["picture"]) == list(first["picture"])


def test_the_version_says_what_made_it_and_how_to_load_it(reference: str, uri: str) -> None:
    found = mlflow.MlflowClient(uri, uri).get_model_version("lora", "1")
    assert found.tags["git_revision"] == "abc"
    assert len(found.tags["sdo.sha256"]) == 64
    assert 'mlflow.pyfunc.load_model("models:/lora/1").predict' in found.description
    assert "`pipeline/` for `from_pretrained`, `adapter/` for `load_lora_weights`" in found.description


def test_a_run_registers_the_same_files_once(tiny_base: Path, tmp_path: Path, uri: str) -> None:
    """Whoever dies after the version is there, and before it is described, finds it again."""
    client = mlflow.MlflowClient(uri, uri)
    run_id = client.create_run(client.create_experiment("once", f"file://{tmp_path}/artifacts")).info.run_id
    it = aligned(tiny_base, tmp_path / "out")

    with subprocess.Popen([sys.executable, "-c", DIES, uri, run_id, str(tiny_base), str(tmp_path)], cwd=ROOT) as dying:
        assert dying.wait() == -signal.SIGKILL
    [left] = client.search_model_versions("name = 'once'")
    assert (left.run_id, left.description) == (run_id, None)

    assert it.register(uri, "once", run_id=run_id) == it.register(uri, "once", run_id=run_id) == "models:/once/1"
    [found] = client.search_model_versions("name = 'once'")
    assert "models:/once/1" in found.description
    assert len(client.get_run(run_id).outputs.model_outputs) == 1
    assert_same(served("models:/once/1", rows()), it.images)

    # Other files, another run and another name are versions of their own.
    other = aligned(tiny_base, tmp_path / "other", train="full")
    assert other.register(uri, "once", run_id=run_id) == "models:/once/2"
    assert it.register(uri, "once") == "models:/once/3"
    assert it.register(uri, "once-more", run_id=run_id) == "models:/once-more/1"


def test_a_directory_is_copied_without_pickles_and_code(tiny_base: Path, tmp_path: Path, uri: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    for name in ("unet/diffusion_pytorch_model.bin", "unet/code.py", "vae/x.ckpt", "notes/a.json", "model.safetensors"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("not what a pipeline needs")
    (base / "tokenizer/merges.txt").write_text("a vocabulary")
    it = aligned(base, tmp_path / "out")
    files = downloaded(f"{it.register(uri, 'copied')}/artifacts", tmp_path / "files") / "pipeline"
    kept = {file.relative_to(files).as_posix() for file in files.rglob("*") if file.is_file()}
    original = {file.relative_to(tiny_base).as_posix() for file in tiny_base.rglob("*") if file.is_file()}
    assert kept == original | {"tokenizer/merges.txt"}


def test_a_hub_model_is_named_with_its_commit(
    tiny_base: Path, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_hub_model(tiny_base, tmp_path / "hub", "org/tiny", monkeypatch)
    it = aligned("org/tiny", tmp_path / "out")
    reference = it.register(uri, "named")
    files = downloaded(f"{reference}/artifacts", tmp_path / "files")
    assert sorted(file.name for file in files.iterdir()) == ["adapter", "recipe.json"]
    recipe = json.loads((files / "recipe.json").read_text())
    assert (recipe["base"], recipe["revision"]) == ("org/tiny", COMMIT)
    found = find_version(reference, uri)
    description = mlflow.MlflowClient(uri, uri).get_model_version("named", str(found.version)).description
    assert f"`from_pretrained('org/tiny', revision='{COMMIT}')`" in description
    assert_same(served(reference, rows()), it.images)
    # For this package it looks like any other, also after the hub's cache has moved.
    pipeline = resolve_model(reference, uri)
    assert (pipeline / "model_index.json").is_file()
    assert adapter_beside(pipeline) is not None
    shutil.rmtree(tmp_path / "hub")
    cached_hub_model(tiny_base, tmp_path / "another", "org/tiny", monkeypatch)
    assert (resolve_model(reference, uri) / "model_index.json").is_file()


def test_a_hub_model_is_copied_if_asked_for(
    tiny_base: Path, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_hub_model(tiny_base, tmp_path / "hub", "org/tiny", monkeypatch)
    it = aligned("org/tiny", tmp_path / "out")
    reference = it.register(uri, "hub-copied", copy_base=True)
    files = downloaded(f"{reference}/artifacts", tmp_path / "files")
    assert json.loads((files / "recipe.json").read_text())["base"] is None
    assert (files / "pipeline/vae/diffusion_pytorch_model.safetensors").is_file()
    assert_same(served(reference, rows()), it.images)


def test_a_hub_model_that_is_not_here_cannot_be_named(lora: Aligned, tmp_path: Path, uri: str, monkeypatch) -> None:
    cached_hub_model(Path(lora.model.base), tmp_path / "hub", "org/tiny", monkeypatch)
    elsewhere = Aligned(lora.model.model_copy(update={"base": "org/other"}), lora.directory, [])
    with pytest.raises(SettingsError, match="the base model 'org/other' is not in the hub's cache"):
        elsewhere.register(uri, "nowhere")


def test_sampling_settings_and_recipe_agree() -> None:
    from sdo_ray.registry.recipe import Recipe

    recipe = Recipe.of(SAMPLING, "bfloat16", 8)
    assert (recipe.num_inference_steps, recipe.guidance_scale, recipe.options) == (3, 2.0, {"negative_prompt": "z"})

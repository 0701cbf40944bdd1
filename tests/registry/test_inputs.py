"""A registered model that draws from more than a prompt is given it, by MLflow and by `sdo sample`, or says so."""

import io
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.sample import main
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.media.picture import picture, to_png
from sdo_ray.models.load import load_pipeline
from sdo_ray.prompts.inputs import SOUNDS, kinds_of
from sdo_ray.registry.pyfunc_model import _argument, _check_inputs
from sdo_ray.registry.recipe import Recipe
from sdo_ray.registry.registration import register_model
from sdo_ray.rollout.preparation import runner_of
from sdo_ray.rollout.sampling import draw
from tests.pipelines.test_any_model import inpainting

PROMPTS = ["a", "b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inpainting")


@pytest.fixture(scope="module")
def settings(folder: Path) -> AlignSettings:
    return load_settings(AlignSettings, inpainting(folder))


@pytest.fixture(scope="module")
def reference(folder: Path, settings: AlignSettings, uri: str) -> str:
    """The base model as a version, with the recipe that a run of these settings has."""
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri, uri)
    place = f"file://{folder}/artifacts" if uri.startswith("sqlite:") else None
    run = client.create_run(client.create_experiment("inputs", place)).info.run_id
    recipe = Recipe.of(settings.shown_sampling, "float32", 2)
    (folder / "out").mkdir()
    return register_model(
        client, run, "inpaints", folder / "out", settings.model.base, recipe, examples=(), provenance={}
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rows(folder: Path) -> list[dict[str, Any]]:
    files = {"image": "images/{}.png", "mask_image": "images/{}-mask.png"}
    given = [{name: (folder / file.format(x)).read_bytes() for name, file in files.items()} for x in PROMPTS]
    return [
        {"prompt": prompt, "seed": seed, "strength": 0.75, **row}
        for seed, (prompt, row) in enumerate(zip(PROMPTS, given, strict=True))
    ]


def expected(settings: AlignSettings) -> list[np.ndarray]:
    """What the pipeline draws of the prompts' own inputs."""
    pipeline, sampling = load_pipeline(settings.model.base, "float32"), settings.shown_sampling
    call = sampling.pipeline_call(PROMPTS, settings.inputs()[:2])
    noise = [torch.Generator().manual_seed(seed) for seed in range(2)]
    images = draw(pipeline, call, noise, runner_of(pipeline, sampling))
    return [np.asarray(Image.open(io.BytesIO(to_png(picture(x, "image"))))) for x in images]


def test_mlflow_is_given_what_the_call_takes(folder: Path, settings: AlignSettings, reference: str) -> None:
    model = mlflow.pyfunc.load_model(reference)
    names = ["prompt", "image", "mask_image", "strength"]
    assert sorted(model.metadata.signature.inputs.required_input_names()) == sorted(names)
    drawn = [np.asarray(Image.open(io.BytesIO(png))) for png in model.predict(rows(folder))["picture"]]
    for one, other in zip(drawn, expected(settings), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(Exception, match=r"(?s)missing inputs.*mask_image"):
        model.predict([{key: row[key] for key in ("prompt", "image", "strength")} for row in rows(folder)])


def test_sample_is_given_them_or_says_so(
    folder: Path, settings: AlignSettings, reference: str, tmp_path: Path, uri: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    asked = ["--model", reference, "--prompts", str(folder / "train.csv"), "--limit", "2", "--out", str(tmp_path)]
    assert main([*asked, "--input", "image=source"]) == 2
    said = capsys.readouterr().err
    assert "draws from image, mask_image, strength beside a prompt, and no column has mask_image" in said
    assert "--input mask_image=COLUMN --input strength=COLUMN" in said
    assert main([*asked, "--input", "image=source", "--input", "mask_image=mask", "--input", "strength=how_much"]) == 0
    for file, other in zip(sorted(tmp_path.glob("0*.png")), expected(settings), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), other)


def test_rows_that_a_call_cannot_take_together() -> None:
    with pytest.raises(ValueError, match=r"from a prompt and image \(image\): the rows have no column image"):
        _check_inputs({"image": "image"}, ["prompt", "seed"])
    with pytest.raises(ValueError, match="sounds are not taken here \\(audio\\): draw with `sdo sample --input`"):
        _check_inputs({"audio": "sound"}, ["prompt", "audio"])
    with pytest.raises(ValueError, match="a call takes one strength"):
        _argument("strength", "number", [0.5, 0.6])
    with pytest.raises(ValueError, match="a call takes image of one size"):
        _argument("image", "image", [to_png(Image.new("RGB", size)) for size in ((8, 8), (9, 8))])


def test_kinds() -> None:
    row = {"image": "a.PNG", "strength": 0.5, "audio": f"b{next(iter(SOUNDS))}", "prompt_2": "c", "reward.text": "d"}
    assert kinds_of(row) == {"image": "image", "strength": "number", "audio": "sound", "prompt_2": "text"}

"""A registered model is drawn with whatever its base is: weights of a variant, absent parts, videos, sounds."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.sample import main
from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.config.calls import takes_guidance
from sdo_ray.media.files import to_file
from sdo_ray.media.modality import modality_of
from sdo_ray.models.load import load_pipeline, pipeline_class
from sdo_ray.registry.pyfunc_model import _file, _set_decoding
from sdo_ray.registry.recipe import Recipe
from sdo_ray.registry.registered_model import RegisteredModel
from sdo_ray.registry.registration import examples_of, register_model
from sdo_ray.rollout.preparation import SWITCHES, runner_of, set_decoding
from sdo_ray.rollout.sampling import draw
from sdo_ray.rollout.settings import SamplingSettings
from tests.support.aligned import aligned, rows
from tests.support.samples import saved

SMALL = {"height": 32, "width": 32}
VIDEO = SMALL | {"num_frames": 5, "max_sequence_length": 16}
CHEAP = CacheSettings(name="taylor", every=2)
BASES: dict[str, tuple[str, dict[str, Any], CacheSettings | None]] = {
    "SD3 without T5": ("StableDiffusion3", SMALL, None),
    "a call without guidance": ("HunyuanImage", SMALL, None),
    "videos": ("Wan", VIDEO, None),
    "videos by cheap steps": ("Wan", VIDEO, CHEAP),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def register(uri: str, tmp_path: Path) -> Callable[[str, SamplingSettings], str]:
    """Registers a base model with a recipe; returns `models:/NAME/VERSION`."""

    def registered(base: str, sampling: SamplingSettings) -> str:
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient(uri, uri)
        experiment = client.get_experiment_by_name("bases")
        place = f"file://{tmp_path}/artifacts" if uri.startswith("sqlite:") else None
        run = client.create_run(experiment.experiment_id if experiment else client.create_experiment("bases", place))
        (tmp_path / "out").mkdir()
        recipe = Recipe.of(sampling, "float32", 2)
        return register_model(
            client,
            run.info.run_id,
            "base",
            tmp_path / "out",
            base,
            recipe,
            examples=examples_of(["a"], 0),
            provenance={},
        )

    return registered


@pytest.mark.parametrize(("kind", "options", "cheap"), BASES.values(), ids=BASES.keys())
def test_mlflow_draws_what_sdo_draws(
    tmp_path: Path,
    register: Callable[[str, SamplingSettings], str],
    kind: str,
    options: dict[str, Any],
    cheap: CacheSettings | None,
) -> None:
    base = str(saved(kind, tmp_path / "base"))
    scale = 3.0 if takes_guidance(pipeline_class(base)) else None
    sampling = SamplingSettings(num_inference_steps=4, guidance_scale=scale, options=options, cache=cheap)
    model = mlflow.pyfunc.load_model(register(base, sampling))
    [row] = model.predict([{"prompt": "a", "seed": 7}]).itertuples()
    pipeline = load_pipeline(base)
    noise, runner = [torch.Generator().manual_seed(7)], runner_of(pipeline, sampling)
    [expected] = draw(pipeline, sampling.pipeline_call(["a"]), noise, runner)
    file = to_file(expected, modality_of(type(pipeline)))
    drawn, other = Image.open(io.BytesIO(row.picture)), Image.open(io.BytesIO(file))
    frames = getattr(other, "n_frames", 1)
    assert (drawn.format, getattr(drawn, "n_frames", 1)) == (other.format, frames)
    for frame in range(frames):
        drawn.seek(frame)
        other.seek(frame)
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(other))


def test_what_is_neither_image_nor_video_is_said() -> None:
    with pytest.raises(ValueError, match="this model makes ndarray, and images and videos are served: use `sdo sampl"):
        _file(np.zeros(4))


@pytest.mark.parametrize("decode", SWITCHES)
def test_all_that_decodes_does_as_in_the_run(tmp_path: Path, decode: Any) -> None:
    """LTX 2's sounds have an autoencoder of their own."""
    base = str(saved("LTX2", tmp_path / "base"))
    served, run = load_pipeline(base), load_pipeline(base)
    _set_decoding(served, decode)
    set_decoding(run, decode)

    def switched(pipeline: Any) -> dict[str, dict[str, Any]]:
        flags = ("use_slicing", "use_tiling", "use_framewise_decoding")
        return {name: {flag: getattr(part, flag, None) for flag in flags} for name, part in pipeline.components.items()}

    assert switched(served) == switched(run)
    assert any(True in flags.values() for flags in switched(served).values())


def test_weights_of_a_variant(
    tiny_base: Path, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    base = tmp_path / "base"
    load_pipeline(str(tiny_base)).save_pretrained(base, variant="fp16")
    it = aligned(f"{base}#fp16", tmp_path / "out")
    reference = it.register(uri, "variant")
    answer = mlflow.pyfunc.load_model(reference).predict(rows())
    drawn = [np.asarray(Image.open(io.BytesIO(png))) for png in answer["picture"]]
    assert all(np.array_equal(one, other) for one, other in zip(drawn, it.images, strict=True))
    assert "variant='fp16'" in mlflow.MlflowClient(uri, uri).get_model_version("variant", "1").description
    RegisteredModel(reference, uri, "float32").load("cpu")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["--model", reference, "--prompt", "a", "--out", str(tmp_path / "a.png")]) == 0, capsys.readouterr()

"""Pipelines of the user's own: named, they run; code that comes with a model does not."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sdo_ray.media.modality import made_by
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.policy import initial_policy
from sdo_ray.models.reference import Reference, parse
from sdo_ray.models.settings import ModelSettings
from sdo_ray.settings import SettingsError
from tests.support.runs import REPOSITORY

CLASS = "trajectories:TrajectoryPipeline"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The pipeline of the docs, saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "docs/examples")
        from trajectories import trained

        directory = tmp_path_factory.mktemp("paths")
        trained(steps=200).save_pretrained(directory)
        yield directory
    sys.modules.pop("trajectories", None)


def test_references() -> None:
    assert parse("org/name@v1#fp16!a.b:C") == Reference("org/name", "v1", "fp16", "a.b:C")
    assert str(parse("org/name!a.b:C")) == "org/name!a.b:C"
    assert parse("org/name!") == Reference("org/name!")
    settings = ModelSettings(base="org/name@v1", pipeline="a:B")
    assert settings.reference == "org/name@v1!a:B"
    assert ModelSettings(base=settings.reference).reference == settings.reference


def test_it_is_loaded_and_learned(paths: Path) -> None:
    model = ModelSettings(base=str(paths), pipeline=CLASS, train="full")
    pipeline = load_pipeline(model.reference)
    assert type(pipeline).__name__ == "TrajectoryPipeline"
    assert made_by(model.reference).modality == "any"
    drawn = pipeline(["a", "b"], generator=torch.Generator().manual_seed(0))[0]
    assert drawn.shape == (2, 2, 32)
    weights = initial_policy(model, 0)
    assert {name.partition(".")[0] for name in weights} == {"unet"}


def test_unnamed_it_is_refused(paths: Path) -> None:
    with pytest.raises(SettingsError, match="code from outside diffusers; it is not run"):
        load_pipeline(str(paths))


def test_components_of_other_code_are_refused(paths: Path, tmp_path: Path) -> None:
    index = json.loads((paths / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"unet": ["os", "Denoiser"]}))
    with pytest.raises(SettingsError, match=r"the unet of .* is os\.Denoiser, code from outside"):
        load_pipeline(f"{tmp_path}!{CLASS}")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.at_all:Class", "cannot be imported: No module named 'nowhere'"),
        ("trajectories:Nothing", "is not there"),
        ("trajectories:Smoothness", "is no subclass of diffusers.DiffusionPipeline"),
    ],
)
def test_names_of_none(paths: Path, path: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_pipeline(f"{paths}!{path}")

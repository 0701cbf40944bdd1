"""A hub model is its id and commit, whatever of it this machine has."""

import shutil
from pathlib import Path

import pytest

from sdo_ray.config.roles import check_roles, find_roles, keep_roles
from sdo_ray.evaluation.settings import ModelsSettings
from sdo_ray.models.files import cached
from sdo_ray.registry.base_model import base_model_sha256
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.provenance import fingerprint
from tests.support.hub import COMMIT, cached_hub_model


def test_weights_that_arrive_later_make_it_no_other_model(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation is started by a head that has the configurations alone, and resumed with the weights there."""
    cached_hub_model(tiny_base, tmp_path / "cache", "org/name", monkeypatch)
    here = Path(cached(f"org/name@{COMMIT}"))
    weights = {path: path.read_bytes() for path in here.rglob("*.safetensors")}
    for path in weights:
        path.unlink()
    run = RunDirectory(str(tmp_path), "run")

    def roles():
        models = ModelsSettings.model_validate({"base": "org/name", "candidate": "org/name"})
        return find_roles(models, SamplingSettings(num_inference_steps=2), "sqlite:////nowhere/x.db")

    keep_roles(run, roles())
    for path, data in weights.items():
        path.write_bytes(data)
    check_roles(run, roles())
    assert base_model_sha256(f"org/name@{COMMIT}") != base_model_sha256("org/name@other")


def test_a_directory_is_its_files(tiny_base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    assert base_model_sha256(str(copy)) == base_model_sha256(str(tiny_base)) == fingerprint(str(tiny_base))

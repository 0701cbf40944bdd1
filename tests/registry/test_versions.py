"""References, and the files they stand for."""

import shutil
from pathlib import Path

import mlflow
import pytest
import safetensors.torch
import torch

from sdo_ray.registry import versions
from sdo_ray.registry.versions import (
    adapter_beside,
    cache,
    fetch_base,
    find_version,
    is_registered,
    recipe_beside,
    resolve_model,
)
from sdo_ray.settings import SettingsError
from tests.support.aligned import Aligned, aligned
from tests.support.hub import COMMIT, cached_hub_model


@pytest.fixture(scope="module")
def lora(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Aligned:
    return aligned(tiny_base, tmp_path_factory.mktemp("lora") / "out")


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_versions_and_aliases(uri: str, lora: Aligned) -> None:
    assert lora.register(uri, "aliased") == "models:/aliased/1"
    assert lora.register(uri, "aliased") == "models:/aliased/2"
    client = mlflow.MlflowClient(uri, uri)
    client.set_registered_model_alias("aliased", "champion", "1")
    first = find_version("models:/aliased@champion", uri)
    assert first.reference == "models:/aliased/1"
    client.set_registered_model_alias("aliased", "champion", "2")
    second = find_version("models:/aliased@champion", uri)
    assert second.reference == "models:/aliased/2"
    assert first.sha256 == second.sha256 == client.get_model_version("aliased", "1").tags["sdo.sha256"]
    assert first.run_id == client.get_model_version("aliased", "1").run_id
    assert find_version("models:/aliased/1", uri) == first


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("models:/named", "got 'models:/named'; a registered model is `models:/NAME/VERSION` or"),
        ("models:/named/latest", "got 'models:/named/latest'"),
        ("models:/named/1/pipeline", "got 'models:/named/1/pipeline'"),
        ("models:/missing/1", r"'models:/missing/1' is not in the registry at sqlite:.*missing.*not found"),
        ("models:/missing@champion", "'models:/missing@champion' is not in the registry"),
        ("models:/here/7", r"'models:/here/7' is not in the registry .*version=7.* not found"),
        ("models:/here@best", r"'models:/here@best' is not in the registry .*alias best not found"),
        ("models:/here/1", r"models:/here/1 was not registered by `sdo align`: it has no tag sdo\.sha256"),
    ],
)
def test_what_names_nothing_is_refused(uri: str, reference: str, said: str) -> None:
    client = mlflow.MlflowClient(uri, uri)
    if not client.search_registered_models("name = 'here'"):
        client.create_registered_model("here")
        client.create_model_version("here", "file:///somewhere")
    assert is_registered(reference)
    with pytest.raises(SettingsError, match=said):
        find_version(reference, uri)


def test_other_references_are_not_registered() -> None:
    assert not any(is_registered(reference) for reference in ("zoo://emoji", "org/models", "/models/x", "models"))


def test_files_are_downloaded_once_and_kept(uri: str, lora: Aligned, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = lora.register(uri, "kept")
    pipeline = resolve_model(reference, uri)
    assert pipeline == cache() / find_version(reference, uri).sha256 / "pipeline"
    assert (pipeline / "model_index.json").is_file()
    adapter = adapter_beside(pipeline)
    assert adapter is not None
    assert (adapter / "pytorch_lora_weights.safetensors").is_file()
    assert recipe_beside(pipeline).num_inference_steps == 3
    assert [file.name for file in cache().iterdir()] == [pipeline.parent.name]
    monkeypatch.setattr(versions, "_download", None)
    assert resolve_model(reference, uri) == pipeline


def test_a_whole_model_has_no_adapter_beside(uri: str, tiny_base: Path, tmp_path: Path) -> None:
    reference = aligned(tiny_base, tmp_path / "out", train="full").register(uri, "whole")
    assert adapter_beside(resolve_model(reference, uri)) is None


def test_changed_files_are_not_used(uri: str, lora: Aligned) -> None:
    reference = lora.register(uri, "changed")
    client = mlflow.MlflowClient(uri, uri)
    place = Path(client.get_model_version_download_uri("changed", "1").removeprefix("file://"))
    file = place / "artifacts/adapter/pytorch_lora_weights.safetensors"
    tensors = safetensors.torch.load_file(file)
    safetensors.torch.save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, file)
    with pytest.raises(SettingsError, match=r"models:/changed/1: the files downloaded have .* not used"):
        resolve_model(reference, uri)
    assert list(cache().iterdir()) == []


def test_files_that_were_changed_since_they_were_downloaded_are_not_used(uri: str, lora: Aligned) -> None:
    reference = lora.register(uri, "kept")
    files = resolve_model(reference, uri).parent
    file = files / "adapter/pytorch_lora_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(SettingsError, match=rf"{reference}: its files in {files} have .* delete them"):
        resolve_model(reference, uri)


def test_two_processes_at_once_do_not_disturb_each_other(
    uri: str, lora: Aligned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While this one downloads, another finishes with the same files."""
    reference = lora.register(uri, "twice")
    download, pipelines = versions._download, []

    def slow(*arguments: object) -> Path:
        monkeypatch.setattr(versions, "_download", download)
        pipelines.append(resolve_model(reference, uri))
        return download(*arguments)

    monkeypatch.setattr(versions, "_download", slow)
    assert resolve_model(reference, uri) == pipelines[0]
    assert len(list(cache().iterdir())) == 1


def test_a_hub_model_that_cannot_be_fetched(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_hub_model(tiny_base, tmp_path / "hub", "org/tiny", monkeypatch)
    assert (fetch_base("org/tiny", COMMIT) / "model_index.json").is_file()
    shutil.rmtree(tmp_path / "hub")
    with pytest.raises(SettingsError, match=f"the base model 'org/tiny', revision {COMMIT}, cannot be fetched"):
        fetch_base("org/tiny", COMMIT)


@pytest.mark.parametrize("tag", ["/etc", "../../elsewhere", "0" * 63, "A" * 64])
def test_a_fingerprint_that_is_none_names_no_directory(uri: str, lora: Aligned, tag: str) -> None:
    """Whoever may edit a version's tags must not choose what others load."""
    name = f"tagged-{len(tag)}"
    reference = lora.register(uri, name)
    mlflow.MlflowClient(uri, uri).set_model_version_tag(name, reference.rpartition("/")[2], "sdo.sha256", tag)
    with pytest.raises(SettingsError, match="which is no SHA-256"):
        resolve_model(reference, uri)

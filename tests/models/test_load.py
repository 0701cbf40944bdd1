"""Pipelines and their denoisers from references."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from sdo_ray.models.denoisers import denoiser_skeletons, find_denoisers
from sdo_ray.models.load import check_base, load_pipeline, pipeline_class, resolve
from sdo_ray.settings import SettingsError


def test_a_saved_directory_is_loaded_frozen(tiny_base: Path) -> None:
    pipeline = load_pipeline(str(tiny_base))
    assert type(pipeline) is StableDiffusionPipeline
    plain = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    for name in ("unet", "vae", "text_encoder"):
        module, same = getattr(pipeline, name), getattr(plain, name)
        assert not module.training
        for (key, a), b in zip(module.named_parameters(), same.parameters(), strict=True):
            assert not a.requires_grad, key
            assert torch.equal(a, b), key


def test_in_the_asked_precision(tiny_base: Path) -> None:
    pipeline = load_pipeline(str(tiny_base), "bfloat16")
    assert {p.dtype for p in pipeline.unet.parameters()} == {torch.bfloat16}


def test_skeletons_have_the_shapes_and_no_weights(tiny_base: Path, tmp_path: Path) -> None:
    real = find_denoisers(load_pipeline(str(tiny_base)))["unet"]
    bare = tmp_path / "bare"
    shutil.copytree(tiny_base, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    skeleton = denoiser_skeletons(str(bare))["unet"]
    shapes = {name: p.shape for name, p in real.named_parameters()}
    assert {name: p.shape for name, p in skeleton.named_parameters()} == shapes
    assert all(p.is_meta for p in skeleton.parameters())


def test_a_pipeline_without_denoiser_says_what_it_has(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "odd", ignore=shutil.ignore_patterns("*.safetensors"))
    index = json.loads((tmp_path / "odd/model_index.json").read_text())
    del index["unet"]
    (tmp_path / "odd/model_index.json").write_text(json.dumps(index))
    with pytest.raises(SettingsError, match=r"no denoiser among unet, transformer, .*; it has .*vae"):
        denoiser_skeletons(str(tmp_path / "odd"))


def test_code_from_outside_diffusers_is_not_run(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "odd", ignore=shutil.ignore_patterns("*.safetensors"))
    index = json.loads((tmp_path / "odd/model_index.json").read_text())
    changed = index | {"unet": ["my_module", "MyUNet"]}
    (tmp_path / "odd/model_index.json").write_text(json.dumps(changed))
    with pytest.raises(SettingsError, match=r"my_module\.MyUNet, code from outside diffusers"):
        denoiser_skeletons(str(tmp_path / "odd"))
    (tmp_path / "odd/model_index.json").write_text(json.dumps(index | {"_class_name": "MyPipeline"}))
    with pytest.raises(SettingsError, match=r"is a MyPipeline, code from outside diffusers"):
        pipeline_class(str(tmp_path / "odd"))


def test_missing_weights_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(SettingsError, match=r"^base: .*bare' cannot be read"):
        load_pipeline(str(tmp_path / "bare"))


@pytest.mark.parametrize("base", ["zoo://none", "./nowhere", "/nowhere", "~/nowhere", "name", "a/b/c"])
def test_references_that_are_none(base: str) -> None:
    with pytest.raises(SettingsError, match=r"^base: "):
        check_base(base)


def test_where_configurations_are(tiny_base: Path) -> None:
    assert resolve(str(tiny_base)) == str(tiny_base)
    assert Path(resolve("zoo://emoji"), "model_index.json").is_file()
    assert resolve("org/name") == "org/name"

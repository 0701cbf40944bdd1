"""Models that cannot be read are refused in a line each, before anything loads them; references with their parts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from sdo_ray.models.denoisers import denoiser_skeletons, load_denoisers
from sdo_ray.models.files import cached, check_files, pinned
from sdo_ray.models.load import load_index, load_pipeline
from sdo_ray.models.reference import Reference, parse
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.skeletons import component_classes
from sdo_ray.settings import SettingsError
from tests.backprop.tiny import stable_diffusion_3
from tests.support.hub import COMMIT, cached_hub_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "model"))


def unet(model: Path) -> Path:
    return model / "unet/diffusion_pytorch_model.safetensors"


def only_a_variant(model: Path) -> None:
    unet(model).rename(model / "unet/diffusion_pytorch_model.fp16.safetensors")


def only_pickles(model: Path) -> None:
    unet(model).rename(model / "unet/diffusion_pytorch_model.bin")


def cut(model: Path) -> None:
    unet(model).write_bytes(unet(model).read_bytes()[:-100])


def cut_in_its_header(model: Path) -> None:
    unet(model).write_bytes(unet(model).read_bytes()[:50])


def pointer(model: Path) -> None:
    unet(model).write_text(POINTER)


def nothing(model: Path) -> None:
    unet(model).unlink()


def no_folder(model: Path) -> None:
    shutil.rmtree(model / "vae")


def no_part(model: Path) -> None:
    load_pipeline(str(model)).unet.save_pretrained(model / "unet", max_shard_size="20KB")
    unet(model).unlink(missing_ok=True)
    min((model / "unet").glob("*-00001-of-*")).unlink()


def pointer_of_a_tokenizer(model: Path) -> None:
    (model / "tokenizer/tokenizer.json").write_text(POINTER)


def cut_configuration(model: Path) -> None:
    (model / "vae/config.json").write_text('{"_class_name": "Autoenc')


def cut_index(model: Path) -> None:
    (model / "model_index.json").write_text('{"_class_name": "Stable')


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (only_a_variant, "variant: the weights of the unet of .* are there as fp16 only; give it: fp16"),
        (
            only_pickles,
            r"base: the unet of .* has diffusion_pytorch_model\.bin, which may hold code .* no \.safetensors",
        ),
        (cut, r"base: diffusion_pytorch_model\.safetensors of the unet of .* is cut: it has \d+ of \d+ bytes"),
        (cut_in_its_header, "is no safetensors file, or is cut: it has 50 bytes"),
        (pointer, "is a pointer of Git LFS, not the file itself; download it again"),
        (nothing, "base: the unet of .* has no weights"),
        (no_folder, "base: .* has no folder vae, which its model_index.json names; save or download the whole model"),
        (no_part, r"base: the unet of .* lacks 1 of the \d+ files of its weights: diffusion_pytorch_model-00001-of-"),
        (pointer_of_a_tokenizer, "base: tokenizer.json of the tokenizer of .* is a pointer of Git LFS"),
        (cut_configuration, "base: config.json of the vae of .* is cut: it has 24 bytes"),
        (cut_index, "base: .* cannot be read: .*not a valid JSON file.*; save or download it again"),
    ],
)
def test_one_line(model: Path, harm: Callable[[Path], None], said: str) -> None:
    check_files(str(model))
    harm(model)
    with pytest.raises(SettingsError, match=said) as caught:
        check_files(str(model))
    assert len(caught.value.problems) == 1


def test_what_nobody_reads_and_what_is_no_component_refuses_nothing(model: Path) -> None:
    """Weights in other formats left as pointers, a file of macOS, and a list that is an argument, as Krea 2 has one."""
    for file in ("unet/diffusion_pytorch_model.bin", "unet/model.onnx", "vae/._config.json"):
        (model / file).write_text(POINTER)
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"text_encoder_select_layers": [1, 2, 3]}))
    check_files(str(model))
    assert "text_encoder_select_layers" not in component_classes(load_index(str(model)))


def test_a_download_that_was_interrupted_is_gone_on_with(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_part(model)
    cached_hub_model(model, tmp_path / "hub", "org/name", monkeypatch)
    check_files("org/name")


def test_a_single_file_is_said_to_be_one(model: Path) -> None:
    with pytest.raises(SettingsError, match=r"is a file, .*`sdo compose --single-file .*unet/.* makes one"):
        check_files(str(unet(model)))


def test_a_variant_that_is_named_is_read(model: Path) -> None:
    only_a_variant(model)
    named = ModelSettings(base=str(model), variant="fp16").reference
    check_files(named)
    plain = load_pipeline(named).unet.state_dict()
    assert all(torch.equal(plain[key], value) for key, value in load_denoisers(named)["unet"].state_dict().items())


def test_sd3_without_t5(tmp_path: Path) -> None:
    pipeline = stable_diffusion_3()
    pipeline.unload_lora_weights()
    pipeline.save_pretrained(tmp_path)
    check_files(str(tmp_path))
    loaded = load_pipeline(str(tmp_path))
    assert isinstance(loaded, StableDiffusion3Pipeline)
    assert loaded.text_encoder_3 is None


def test_references(tmp_path: Path) -> None:
    assert parse("org/name") == Reference("org/name")
    assert parse("org/name@refs/pr/3#fp16") == Reference("org/name", "refs/pr/3", "fp16")
    (odd := tmp_path / "a@b#c").mkdir()
    assert parse(str(odd)) == Reference(str(odd))
    assert parse("~/nowhere@x") == Reference("~/nowhere", "x")
    assert parse(f"{odd}#fp16") == Reference(str(odd), None, "fp16")
    for text in ("org/name", "org/name@v1", "org/name#fp16", "org/name@v1#fp16", f"{odd}#fp16"):
        assert str(parse(text)) == text


def test_a_hub_model_is_pinned_to_its_commit(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_hub_model(tiny_base, tmp_path, "org/name", monkeypatch)
    settings = ModelSettings(base="org/name", revision="main")
    assert pinned(settings.reference) == f"org/name@{COMMIT}"
    assert pinned("zoo://emoji") == "zoo://emoji"
    assert pinned(str(tiny_base)) == str(tiny_base)
    assert cached(f"org/name@{COMMIT}") == str(tmp_path / "models--org--name/snapshots" / COMMIT)
    assert denoiser_skeletons(f"org/name@{COMMIT}").keys() == {"unet"}
    for absent in ("org/other", "org/name@v2"):
        with pytest.raises(SettingsError, match=f"base: '{absent}' cannot be read"):
            pinned(absent)
    nothing(Path(cached("org/name")))
    with pytest.raises(SettingsError, match="has no weights"):
        check_files("org/name")

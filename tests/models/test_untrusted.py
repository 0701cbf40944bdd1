"""Models and adapters that try to run code of their own: refused in a line, and the code is not run."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from sdo_ray.models.adapter_file import FILE, load_adapter
from sdo_ray.models.load import load_pipeline, pipeline_class
from sdo_ray.settings import SettingsError


class Bomb:
    """A pickle that leaves a file where it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Exists once code from outside was run."""
    return tmp_path / "code-was-run"


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "model"))


def change_index(model: Path, **entries: object) -> None:
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | entries))


def test_the_bomb_goes_off_when_unpickled(mark: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


@pytest.mark.parametrize("entry", ["MyPipeline", ["pipeline", "MyPipeline"]])
def test_a_pipeline_of_its_own(model: Path, mark: Path, entry: object) -> None:
    (model / "pipeline.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass MyPipeline: pass\n")
    change_index(model, _class_name=entry)
    with pytest.raises(SettingsError, match="MyPipeline, code from outside diffusers; it is not run"):
        pipeline_class(str(model))
    with pytest.raises(SettingsError, match="MyPipeline, code from outside diffusers; it is not run"):
        load_pipeline(str(model))
    assert not mark.exists()


def test_a_component_of_its_own(model: Path, mark: Path) -> None:
    (model / "unet/my_unet.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass MyUNet: pass\n")
    change_index(model, unet=["my_unet", "MyUNet"])
    with pytest.raises(SettingsError, match=r"unet of .* is my_unet\.MyUNet, code from outside"):
        load_pipeline(str(model))
    assert not mark.exists()


def test_weights_as_pickles(model: Path, mark: Path) -> None:
    (model / "unet/diffusion_pytorch_model.safetensors").unlink()
    (model / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(SettingsError, match=r"cannot be read: .*safetensors"):
        load_pipeline(str(model))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pytorch_lora_weights.bin", "adapter.pt", "adapter.ckpt", "adapter.pth"])
def test_an_adapter_as_a_pickle(tiny_base: Path, tmp_path: Path, mark: Path, name: str) -> None:
    file = tmp_path / "adapter" / name
    file.parent.mkdir()
    file.write_bytes(pickle.dumps(Bomb(mark)))
    pipeline = load_pipeline(str(tiny_base))
    with pytest.raises(SettingsError, match=r"only \.safetensors files are read"):
        load_adapter(pipeline, str(file))
    with pytest.raises(SettingsError, match=f"has no {FILE}"):
        load_adapter(pipeline, str(file.parent))
    assert not mark.exists()


def test_an_adapter_whose_name_lies(tiny_base: Path, tmp_path: Path, mark: Path) -> None:
    (tmp_path / FILE).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(SettingsError, match="is no safetensors file"):
        load_adapter(load_pipeline(str(tiny_base)), str(tmp_path))
    assert not mark.exists()

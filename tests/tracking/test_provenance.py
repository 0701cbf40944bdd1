"""What made a model."""

import shutil
from pathlib import Path

import safetensors.torch

from sdo_ray.tracking.provenance import environment, fingerprint, flatten


def test_the_fingerprint_follows_the_weights_and_not_the_place(tiny_base: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_base, moved)
    before = fingerprint(str(tiny_base))
    assert fingerprint(str(moved)) == before
    (moved / "README.md").write_text("words change nothing")
    assert fingerprint(str(moved)) == before
    file = moved / "unet/diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(file)
    next(iter(tensors.values())).view(-1)[0] += 1e-3
    safetensors.torch.save_file(tensors, file)
    assert fingerprint(str(moved)) != before


def test_a_configuration_or_a_name_counts_too(tiny_base: Path, tmp_path: Path) -> None:
    for i, change in enumerate(("edit", "rename")):
        moved = tmp_path / str(i)
        shutil.copytree(tiny_base, moved)
        config = moved / "scheduler/scheduler_config.json"
        if change == "edit":
            config.write_text(config.read_text().replace("0.012", "0.013"))
        else:
            config.rename(config.with_name("other.json"))
        assert fingerprint(str(moved)) != fingerprint(str(tiny_base))


def test_the_environment_names_code_and_packages() -> None:
    found = environment()
    assert found["git_revision"]
    assert found["version.torch"]
    assert found["version.sdo-ray"] != "not installed"


def test_dotted_names() -> None:
    nested = {"a": {"b": 1, "c": [True, {"d": None}]}, "e": [], "f": {}}
    assert flatten(nested) == {"a.b": "1", "a.c.0": "True", "a.c.1.d": "None", "e": "[]", "f": "{}"}

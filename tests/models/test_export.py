"""What a run hands out."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from sdo_ray.models.denoisers import find_denoisers, load_denoisers
from sdo_ray.models.export import ADAPTER, BASE, MODEL, export_model, product
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import initial_policy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.trained.lora import LoraSettings, attach, merge
from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES
from tests.models.adapters import LORA, trained_weights


def test_a_base_that_others_can_load_is_only_named(tiny_base: Path, tmp_path: Path) -> None:
    model = ModelSettings(base=str(tiny_base), lora=LORA)
    assert export_model(tmp_path, model, trained_weights(tiny_base)) is None
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")] == [
        "adapter/pytorch_lora_weights.safetensors"
    ]


def test_equal_adapters_are_equal_files(tiny_base: Path, tmp_path: Path) -> None:
    """And so have equal fingerprints. Left to itself, each writing has its own order of the metadata."""
    model, weights = ModelSettings(base=str(tiny_base), lora=LORA), trained_weights(tiny_base)
    for number in range(8):
        export_model(tmp_path / str(number), model, weights)
    assert len({file.read_bytes() for file in tmp_path.rglob("*.safetensors")}) == 1


def test_a_zoo_model_is_handed_out_whole(tmp_path: Path) -> None:
    model = ModelSettings(base="zoo://emoji", lora=LORA)
    assert export_model(tmp_path, model, trained_weights("zoo://emoji")) == BASE
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / BASE, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path / ADAPTER)
    images = pipeline("apple", num_inference_steps=2, output_type="pt").images
    assert torch.isfinite(images).all()


@pytest.fixture(scope="module", params=["PixArtSigma", "KandinskyV22Prior"])
def no_adapter_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline for whose adapters diffusers has no file; the second one's denoiser is its prior."""
    directory = tmp_path_factory.mktemp(request.param)
    assemble(f"{request.param}Pipeline", CASES[request.param].parts).save_pretrained(directory)
    return directory


def test_where_diffusers_has_no_adapter_file_the_complete_model_is_handed_out(
    no_adapter_file: Path, tmp_path: Path
) -> None:
    lora = LoraSettings(rank=2, alpha=6.0, targets=["to_q", "to_v"])
    model = ModelSettings(base=str(no_adapter_file), lora=lora)
    weights = {name: tensor + 0.3 for name, tensor in initial_policy(model, 0).items()}
    assert weights
    assert product(model) == MODEL
    assert export_model(tmp_path, model, weights) is None
    base, aligned = (find_denoisers(load_pipeline(str(path))) for path in (no_adapter_file, tmp_path / MODEL))
    assert base.keys() == aligned.keys()
    adapted = load_denoisers(model.base)
    attach(adapted, lora)
    set_parameters(adapted, weights)
    merge(adapted)
    for name, module in aligned.items():
        expected = adapted[name].state_dict()
        changed = {key for key, tensor in base[name].state_dict().items() if not torch.equal(tensor, expected[key])}
        assert changed
        for key, tensor in module.state_dict().items():
            torch.testing.assert_close(tensor, expected[key], msg=key)

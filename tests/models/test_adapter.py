"""The adapter: attached, started, set, switched off, and as a file of plain diffusers."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline

from sdo_ray.models.adapter_file import load_adapter
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.trained.lora import LoraSettings, adapter_off, attach, initial, save_lora
from sdo_ray.settings import SettingsError
from tests.models.adapters import LORA, trained_weights
from tests.models.draws import draw


@pytest.fixture
def plain(tiny_base: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def adapted(tiny_base: Path) -> DiffusionPipeline:
    pipeline = load_pipeline(str(tiny_base))
    attach(pipeline.components, LORA)
    return pipeline


def test_a_new_adapter_changes_nothing(tiny_base: Path, adapted, plain) -> None:
    set_parameters(find_denoisers(adapted), initial(str(tiny_base), "float32", LORA, 0))
    assert torch.equal(draw(adapted), draw(plain))


def test_the_initial_adapter_fits_and_depends_on_the_seed_alone(tiny_base: Path, adapted) -> None:
    first, again, other = (initial(str(tiny_base), "float32", LORA, seed) for seed in (0, 0, 1))
    parameters = trained_parameters(find_denoisers(adapted))
    assert list(first) == list(parameters)
    assert any("conv1" in name for name in first)
    for name, tensor in first.items():
        assert tensor.shape == parameters[name].shape
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, again[name])
        if ".lora_A." in name:
            bound = tensor[0].numel() ** -0.5
            assert 0 < tensor.abs().max() <= bound
            assert not torch.equal(tensor, other[name])
        else:
            assert not tensor.any()


def test_only_the_adapter_is_trained_and_always_in_float32(tiny_base: Path) -> None:
    pipeline = load_pipeline(str(tiny_base), "bfloat16")
    attach(pipeline.components, LORA)
    trained = {name: p for name, p in pipeline.unet.named_parameters() if p.requires_grad}
    assert all(".lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    assert len(trained) == len(trained_parameters({"unet": pipeline.unet}))


def test_off_means_the_base_model(tiny_base: Path, adapted, plain) -> None:
    base = draw(plain)
    set_parameters(find_denoisers(adapted), trained_weights(tiny_base))
    aligned = draw(adapted)
    assert not torch.equal(aligned, base)
    with adapter_off(adapted):
        assert torch.equal(draw(adapted), base)
    assert torch.equal(draw(adapted), aligned)


def test_on_again_after_an_exception(tiny_base: Path, adapted) -> None:
    set_parameters(find_denoisers(adapted), trained_weights(tiny_base))
    aligned = draw(adapted)
    with pytest.raises(KeyboardInterrupt), adapter_off(adapted):
        raise KeyboardInterrupt
    assert torch.equal(draw(adapted), aligned)


def test_weights_of_another_adapter_are_refused(tiny_base: Path, adapted) -> None:
    weights = trained_weights(tiny_base)
    name, tensor = weights.popitem()
    with pytest.raises(KeyError, match="missing") as refused:
        set_parameters(find_denoisers(adapted), weights | {"unet.other": tensor})
    assert name in str(refused.value)
    assert "unet.other" in str(refused.value)


def test_exported_weights_draw_the_same_bits_in_plain_diffusers(
    tiny_base: Path, tmp_path: Path, adapted, plain
) -> None:
    weights = trained_weights(tiny_base)
    set_parameters(find_denoisers(adapted), weights)
    assert LORA.alpha != LORA.rank
    assert save_lora(str(tiny_base), LORA, weights, tmp_path).name == "pytorch_lora_weights.safetensors"
    plain.load_lora_weights(tmp_path)
    assert torch.equal(draw(plain), draw(adapted))


def test_our_loader_takes_a_directory_or_a_file(tiny_base: Path, tmp_path: Path, adapted) -> None:
    weights = trained_weights(tiny_base)
    set_parameters(find_denoisers(adapted), weights)
    file = save_lora(str(tiny_base), LORA, weights, tmp_path)
    for location in (tmp_path, file):
        loaded = load_pipeline(str(tiny_base))
        load_adapter(loaded, str(location))
        assert torch.equal(draw(loaded), draw(adapted))


def test_an_adapter_with_layers_that_the_model_lacks_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    import safetensors.torch

    file = save_lora(str(tiny_base), LORA, trained_weights(tiny_base), tmp_path)
    tensors = safetensors.torch.load_file(file)
    name = next(iter(tensors))
    extra = name.replace("down_blocks.0", "down_blocks.7").replace("down_blocks.1", "down_blocks.7")
    extra = extra.replace("up_blocks.", "up_blocks.7").replace("mid_block", "end_block")
    safetensors.torch.save_file(tensors | {extra: tensors[name].clone()}, file)
    with pytest.raises(SettingsError, match=f"{len(tensors)} of its {len(tensors) + 1} tensors have a layer there"):
        load_adapter(load_pipeline(str(tiny_base)), str(tmp_path))


def test_unknown_layers_are_listed(tiny_base: Path) -> None:
    with pytest.raises(SettingsError, match=r"ends with to_z; its layers end with .*to_q"):
        initial(str(tiny_base), "float32", LoraSettings(targets=["to_q", "to_z"]), 0)


@pytest.mark.parametrize("named", ["directory", "file", "another name"])
def test_pefts_own_format_is_refused_as_such(tiny_base: Path, tmp_path: Path, named: str) -> None:
    from peft import LoraConfig, get_peft_model

    pipeline = load_pipeline(str(tiny_base))
    get_peft_model(pipeline.unet, LoraConfig(r=2, target_modules=["to_q"])).save_pretrained(tmp_path)
    location = tmp_path if named == "directory" else tmp_path / "adapter_model.safetensors"
    if named == "another name":
        location = location.rename(tmp_path / "mine.safetensors")
    with pytest.raises(SettingsError, match=r"in PEFT's own format; diffusers reads .*save_lora_weights"):
        load_adapter(load_pipeline(str(tiny_base)), str(location))


def test_a_file_of_another_format_of_which_a_part_fits_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    """Kohya's names have no `lora_A` to count."""
    import safetensors.torch

    layers = ["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"]
    width = load_pipeline(str(tiny_base)).unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.in_features

    def write(names: list[str]) -> str:
        factors = {"lora_down": torch.randn(2, width), "lora_up": torch.randn(width, 2)}
        tensors = {f"{name}.{part}.weight": x.clone() for name in names for part, x in factors.items()}
        tensors |= {f"{name}.alpha": torch.tensor(2.0) for name in names}
        safetensors.torch.save_file(tensors, tmp_path / "kohya.safetensors")
        return str(tmp_path / "kohya.safetensors")

    load_adapter(load_pipeline(str(tiny_base)), write(layers))
    file = write([*layers, layers[0].replace("attentions_0", "attentions_7")])
    with pytest.raises(SettingsError, match=r"does not fit StableDiffusionPipeline as a whole: .*attentions.7"):
        load_adapter(load_pipeline(str(tiny_base)), file)


def test_a_pointer_of_git_lfs_is_said_to_be_one(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(SettingsError, match="is a pointer of Git LFS, not the file itself; download it again"):
        load_adapter(load_pipeline(str(tiny_base)), str(tmp_path / "a.safetensors"))


def test_the_directory_of_a_run_is_told_where_its_adapter_is(tiny_base: Path, tmp_path: Path) -> None:
    save_lora(str(tiny_base), LORA, trained_weights(tiny_base), tmp_path / "adapter")
    with pytest.raises(SettingsError, match=f"give a directory with one, such as {tmp_path / 'adapter'}, or"):
        load_adapter(load_pipeline(str(tiny_base)), str(tmp_path))

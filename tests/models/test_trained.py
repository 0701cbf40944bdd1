"""Every kind of training: nothing changes at first, the right parameters learn, plain diffusers loads the result."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from sdo_ray import differentiable_sample, make_plan
from sdo_ray.models.export import ADAPTER, MODEL, export_model, product
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach, attach_working_copy, initial_policy
from sdo_ray.models.precision import own_precision
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.trained.diffit import DiffFitSettings
from sdo_ray.models.trained.lora import LoraSettings, adapter_off
from sdo_ray.settings import SettingsError
from tests.models.draws import draw, moved

KINDS = {
    "lora": {"lora": LoraSettings(rank=2, alpha=6.0)},
    "text": {"lora": LoraSettings(rank=2, alpha=6.0, text_encoder_targets=["q_proj", "fc1"])},
    "diffit": {"train": "diffit", "diffit": DiffFitSettings()},
    "full": {"train": "full"},
}


def settings(base: Path, kind: str, dtype: str = "float32") -> ModelSettings:
    return ModelSettings(base=str(base), dtype=dtype, **KINDS[kind])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_at_first_nothing_changes_and_everything_learns(tiny_base: Path, kind: str, dtype: str) -> None:
    model, pipeline = settings(tiny_base, kind, dtype), load_pipeline(str(tiny_base), dtype)
    before = draw(pipeline)
    masters = attach(load_pipeline(str(tiny_base), dtype).components, model)
    assert all(p.dtype == torch.float32 for p in trained_parameters(masters).values())
    trained = attach_working_copy(pipeline.components, model)
    initial = initial_policy(model, 0)
    set_parameters(trained, initial)
    assert torch.equal(draw(pipeline), before)
    parameters = trained_parameters(trained)
    assert list(parameters) == list(initial)
    assert all(p.dtype == getattr(torch, dtype) for p in parameters.values())
    # B of a LoRA starts at zero, where A has no gradient.
    set_parameters(trained, moved(initial))
    with own_precision(pipeline):
        images = differentiable_sample(
            pipeline,
            make_plan("sdo", 3, draw="fixed", at=[1]),
            prompt=["a"],
            num_inference_steps=3,
            guidance_scale=2.0,
            generator=torch.Generator().manual_seed(0),
        )
    images.square().sum().backward()
    without = [name for name, p in parameters.items() if p.grad is None or not p.grad.any()]
    if kind == "text":
        # The last layer's output may not reach the images; its first layers must.
        assert any(name.startswith("text_encoder.") and name not in without for name in parameters)
    frozen = {name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)} - trained.keys()
    assert frozen
    assert not any(p.requires_grad for name in frozen for p in pipeline.components[name].parameters())
    # A key's bias moves all of a softmax's inputs alike.
    assert all(".to_k.bias" in name for name in without), without


def test_what_each_kind_trains(tiny_base: Path) -> None:
    unet = load_pipeline(str(tiny_base)).unet
    policies = {kind: initial_policy(settings(tiny_base, kind), 0) for kind in KINDS}
    assert policies["text"].keys() > policies["lora"].keys()
    assert {name.split(".")[0] for name in policies["text"]} == {"unet", "text_encoder"}
    assert policies["full"].keys() == {f"unet.{name}" for name, _ in unet.named_parameters()}
    one_dimensional = {f"unet.{name}" for name, p in unet.named_parameters() if p.dim() == 1}
    scales = policies["diffit"].keys() - one_dimensional
    assert scales
    assert all(name.endswith(("to_out.0.diffit_scale", "ff.net.2.diffit_scale")) for name in scales)
    assert policies["diffit"].keys() == one_dimensional | scales


def test_a_diffit_scale_multiplies_the_branch(tiny_base: Path) -> None:
    model, pipeline = settings(tiny_base, "diffit"), load_pipeline(str(tiny_base))
    layer = next(m for n, m in pipeline.unet.named_modules() if n.endswith("to_out.0"))
    x = torch.randn(2, layer.in_features)
    plain = layer(x)
    trained = attach(pipeline.components, model)
    initial = initial_policy(model, 0)
    scaled = {name: 3 * tensor if name.endswith("diffit_scale") else tensor for name, tensor in initial.items()}
    set_parameters(trained, scaled)
    torch.testing.assert_close(layer(x), 3 * plain)


@pytest.mark.parametrize("kind", ["diffit", "full"])
def test_the_complete_model_draws_the_same_in_plain_diffusers(tiny_base: Path, tmp_path: Path, kind: str) -> None:
    model, pipeline = settings(tiny_base, kind), load_pipeline(str(tiny_base))
    before = draw(pipeline)
    trained = attach(pipeline.components, model)
    weights = moved(initial_policy(model, 0))
    set_parameters(trained, weights)
    aligned = draw(pipeline)
    assert (aligned - before).abs().max() > 1e-3
    assert export_model(tmp_path, model, weights) is None
    assert product(model) == MODEL
    plain = StableDiffusionPipeline.from_pretrained(tmp_path / MODEL, safety_checker=None)
    plain.set_progress_bar_config(disable=True)
    assert not any("lora" in name or "diffit" in name for name in plain.unet.state_dict())
    torch.testing.assert_close(draw(plain), aligned, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "text"])
def test_a_lora_is_handed_out_as_one_and_draws_the_same_in_plain_diffusers(
    tiny_base: Path, tmp_path: Path, kind: str
) -> None:
    model, pipeline = settings(tiny_base, kind), load_pipeline(str(tiny_base))
    weights = moved(initial_policy(model, 0))
    set_parameters(attach(pipeline.components, model), weights)
    assert product(model) == ADAPTER
    export_model(tmp_path, model, weights)
    assert [path.name for path in tmp_path.iterdir()] == [ADAPTER]
    plain = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    plain.set_progress_bar_config(disable=True)
    plain.load_lora_weights(tmp_path / ADAPTER)
    torch.testing.assert_close(draw(plain), draw(pipeline), rtol=0, atol=1e-5)


def test_of_text_encoders_that_diffusers_has_no_file_for_the_complete_model_is_handed_out() -> None:
    model = ModelSettings(base="zoo://emoji", lora=LoraSettings(text_encoder_targets=["query"]))
    assert product(model) == MODEL


def test_off_means_the_base_model_with_a_text_encoder_too(tiny_base: Path) -> None:
    model, pipeline = settings(tiny_base, "text"), load_pipeline(str(tiny_base))
    before = draw(pipeline)
    set_parameters(attach(pipeline.components, model), moved(initial_policy(model, 0)))
    assert not torch.equal(draw(pipeline), before)
    with adapter_off(pipeline):
        assert torch.equal(draw(pipeline), before)


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"train": "diffit", "diffit": {"scales": ["to_z"]}}, "diffit.scales"),
        ({"lora": {"text_encoder_targets": ["to_z"]}}, "lora.text_encoder_targets"),
    ],
)
def test_unknown_layers_are_refused(tiny_base: Path, changes: dict, setting: str) -> None:
    with pytest.raises(SettingsError, match=rf"{setting}: .* ends? with to_z") as refused:
        initial_policy(ModelSettings(base=str(tiny_base), **changes), 0)
    assert "layers end with" in str(refused.value)


def test_settings_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`lora` is given, but `train` is 'full'.*`--set model\.lora=null`"):
        ModelSettings(base="zoo://emoji", train="full", lora=LoraSettings(rank=2))
    with pytest.raises(ValueError, match=r"`diffit` is given, but `train` is 'lora'.*`--set model\.diffit=null`"):
        ModelSettings(base="zoo://emoji", diffit=DiffFitSettings(scales=[]))


@pytest.mark.parametrize("train", ["lora", "diffit", "full"])
def test_settings_that_were_written_down_are_read_again(train: str) -> None:
    settings = ModelSettings(base="zoo://emoji", train=train)
    assert ModelSettings.model_validate(settings.to_dict()) == settings

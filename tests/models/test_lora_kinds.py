"""LoRAs beyond the plain one: the base's images at first, PEFT's formulas, files that plain diffusers draws with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from sdo_ray.cheap_steps.fast_copy import FastCopy
from sdo_ray.cheap_steps.settings import CopySettings
from sdo_ray.models.export import ADAPTER, MODEL, export_model, product
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach, attach_working_copy, initial_policy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.trained.pissa import principal
from sdo_ray.settings import SettingsError
from sdo_ray.training.modules import Denoisers
from tests.models.draws import draw, moved

ATTENTION = ["to_q", "to_v"]
PATTERNS = {"rank_pattern": {"attn2.to_q": 4, "conv1": 3}, "alpha_pattern": {"attn1.to_v": 1.0}}
KINDS: dict[str, dict[str, Any]] = {
    "rslora": {"rslora": True, "targets": [*ATTENTION, "conv1"]},
    "gaussian": {"init": "gaussian", "targets": [*ATTENTION, "conv1"]},
    "patterns": {"targets": [*ATTENTION, "conv1"], **PATTERNS},
    "dora": {"dora": True, "targets": [*ATTENTION, "conv1"]},
    "dora of patterns": {"dora": True, "rslora": True, "targets": [*ATTENTION, "conv1"], **PATTERNS},
    "pissa": {"init": "pissa", "targets": ATTENTION, "text_encoder_targets": ["q_proj", "fc1"]},
    "pissa of patterns": {
        "init": "pissa",
        "rslora": True,
        "targets": ATTENTION,
        "rank_pattern": {"attn2.to_q": 4},
        "alpha_pattern": {"attn1.to_v": 1.0},
    },
}


def settings(base: Path, kind: str, **changes: Any) -> ModelSettings:
    return ModelSettings.model_validate(
        {"base": str(base), "lora": {"rank": 2, "alpha": 6.0, **KINDS[kind]}, **changes}
    )


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, "float32") for kind in KINDS]
    + [(kind, "bfloat16") for kind, lora in KINDS.items() if lora.get("init") != "pissa"],  # which is refused, below
)
def test_at_first_the_images_are_the_bases(tiny_base: Path, kind: str, dtype: str) -> None:
    model = settings(tiny_base, kind, dtype=dtype)
    pipeline = load_pipeline(str(tiny_base), dtype)
    before = draw(pipeline)
    trained, initial = attach_working_copy(pipeline.components, model), initial_policy(model, 0)
    assert {name: w.shape for name, w in initial.items()} == {
        name: p.shape for name, p in trained_parameters(trained).items()
    }
    assert all(w.dtype == torch.float32 and w.is_contiguous() for w in initial.values())
    again = initial_policy(model, 0)
    assert all(torch.equal(w, again[name]) for name, w in initial.items())
    set_parameters(trained, initial)
    # What a start takes from the base comes back rounded.
    torch.testing.assert_close(draw(pipeline), before, rtol=0, atol=1e-4 if model.lora.init == "pissa" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_draws_the_same_in_plain_diffusers_and_merged(tiny_base: Path, tmp_path: Path, kind: str) -> None:
    model, pipeline = settings(tiny_base, kind), load_pipeline(str(tiny_base))
    before, weights = draw(pipeline), moved(initial_policy(model, 0))
    trained = attach(pipeline.components, model)
    set_parameters(trained, weights)
    aligned = draw(pipeline)
    assert (aligned - before).abs().max() > 1e-2
    export_model(tmp_path, model, weights)
    plain = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    plain.load_lora_weights(tmp_path / ADAPTER)
    torch.testing.assert_close(draw(plain), aligned, rtol=0, atol=1e-4 if model.lora.init == "pissa" else 1e-5)
    model.kind.merge(trained)
    torch.testing.assert_close(draw(pipeline), aligned, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["dora", "pissa"])
def test_trainers_hold_the_model_that_samples(tiny_base: Path, kind: str) -> None:
    """The same output and the same gradient of every weight, from denoisers of their own."""
    model = settings(tiny_base, kind)
    model = model.model_copy(update={"lora": model.lora.model_copy(update={"text_encoder_targets": []})})
    weights, pipeline = moved(initial_policy(model, 0)), load_pipeline(str(tiny_base))
    trained = attach_working_copy(pipeline.components, model)
    set_parameters(trained, weights)
    trainer = Denoisers(model, weights)
    unets = [pipeline.unet, trainer.denoisers["unet"]]
    config = pipeline.unet.config
    x = torch.randn(1, config.in_channels, config.sample_size, config.sample_size)
    states = torch.randn(1, 4, config.cross_attention_dim)
    outputs = [unet(x, 3, states).sample for unet in unets]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    gradients = [{n: p.grad for n, p in trained_parameters({"unet": unet}).items()} for unet in unets]
    assert gradients[0].keys() == gradients[1].keys() == weights.keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name])
        assert gradient.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_copy_follows(tiny_base: Path, kind: str) -> None:
    model, pipeline = settings(tiny_base, kind), load_pipeline(str(tiny_base))
    trained, initial = attach_working_copy(pipeline.components, model), initial_policy(model, 0)
    copy = FastCopy("unet", pipeline.unet, CopySettings(until=0.5))
    set_parameters(trained, moved(initial))
    copy.follow()
    config = pipeline.unet.config
    args = (torch.randn(1, config.in_channels, 8, 8), 3, torch.randn(1, 4, config.cross_attention_dim))
    with torch.no_grad():
        torch.testing.assert_close(copy(args, {}).sample, pipeline.unet(*args).sample, rtol=0, atol=1e-4)


def test_a_dora_of_text_encoders_is_handed_out_as_a_complete_model(tiny_base: Path, tmp_path: Path) -> None:
    """diffusers reads their lengths by another name, and would draw without them."""
    lora = {"rank": 2, "dora": True, "targets": ATTENTION, "text_encoder_targets": ["q_proj"]}
    model = ModelSettings.model_validate({"base": str(tiny_base), "lora": lora})
    assert product(model) == MODEL
    pipeline, weights = load_pipeline(str(tiny_base)), moved(initial_policy(model, 0))
    set_parameters(attach(pipeline.components, model), weights)
    export_model(tmp_path, model, weights)
    torch.testing.assert_close(draw(load_pipeline(str(tmp_path / MODEL))), draw(pipeline), rtol=0, atol=1e-4)


def layer_of(trained: dict[str, torch.nn.Module], ending: str) -> Any:
    return next(module for name, module in trained["unet"].named_modules() if name.endswith(ending))


def factors(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.lora_A["aligned"].weight, layer.lora_B["aligned"].weight


@pytest.mark.parametrize(
    ("kind", "ending", "scale"),
    [
        ("rslora", "attn1.to_q", 6 / 2**0.5),
        ("patterns", "attn1.to_q", 6 / 2),
        ("patterns", "attn2.to_q", 6 / 4),
        ("patterns", "attn1.to_v", 1 / 2),
        ("dora of patterns", "attn2.to_q", 6 / 4**0.5),
    ],
)
def test_the_scale_of_an_update(tiny_base: Path, kind: str, ending: str, scale: float) -> None:
    model, pipeline = settings(tiny_base, kind), load_pipeline(str(tiny_base))
    base = layer_of({"unet": pipeline.unet}, ending).weight.detach().clone()
    trained = attach(pipeline.components, model)
    set_parameters(trained, moved(initial_policy(model, 0)))
    layer = layer_of(trained, ending)
    down, up = factors(layer)
    merged = base + scale * up @ down
    if model.lora.dora:
        length = layer.lora_magnitude_vector["aligned"].weight
        merged = length[:, None] * merged / merged.norm(dim=1, keepdim=True)
    x = torch.randn(5, layer.in_features)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, merged, layer.base_layer.bias))


def test_a_doras_length_is_that_of_the_bases_rows_and_learns_by_its_own_gradient(tiny_base: Path) -> None:
    """With u the unit rows, y = m (u x): dy/dm = u x."""
    model, pipeline = settings(tiny_base, "dora"), load_pipeline(str(tiny_base))
    base = layer_of({"unet": pipeline.unet}, "attn1.to_q").weight.detach().clone()
    initial = initial_policy(model, 0)
    name = next(n for n in initial if "attn1.to_q.lora_magnitude" in n)
    torch.testing.assert_close(initial[name], base.norm(dim=1))
    trained = attach(pipeline.components, model)
    set_parameters(trained, initial)
    layer = layer_of(trained, "attn1.to_q")
    x = torch.randn(1, layer.in_features)
    layer(x).sum().backward()
    expected = (base / base.norm(dim=1, keepdim=True)) @ x[0]
    torch.testing.assert_close(layer.lora_magnitude_vector["aligned"].weight.grad, expected)


def test_a_gaussian_start_has_its_deviation(tiny_base: Path) -> None:
    initial = initial_policy(settings(tiny_base, "gaussian"), 0)
    drawn = torch.cat([w.flatten() for name, w in initial.items() if ".lora_A." in name])
    assert drawn.std() == pytest.approx(1 / 2, rel=0.1)
    assert not any(w.any() for name, w in initial.items() if ".lora_B." in name)


def test_what_pissa_starts_with_is_the_principal_part() -> None:
    drawn = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(drawn, full_matrices=False)
    values = 0.7 ** torch.arange(16)
    weight = left * values @ right
    down, up = principal(weight, 3, 2.5)
    torch.testing.assert_close(2.5 * up @ down, left[:, :3] * values[:3] @ right[:3], rtol=0, atol=1e-4)
    rest = torch.linalg.svdvals(weight - 2.5 * up @ down)
    torch.testing.assert_close(rest[:13], values[3:], rtol=0, atol=1e-4)
    state = torch.random.get_rng_state()
    again = principal(weight, 3, 2.5)
    assert torch.equal(again[0], down)
    assert torch.equal(again[1], up)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"init": "pissa", "targets": ["conv1"]}, r"lora\.init: got 'pissa', and .*conv1 is a convolution"),
        ({"init": "pissa", "rank": 999}, r"lora\.rank: .*has no rank 999.*lora\.rank_pattern"),
        ({"rank_pattern": {"to_z": 4}}, r"lora\.rank_pattern: no adapted layer ends with to_z; .*to_out\.0"),
        ({"alpha_pattern": {"to_q": 4.0, "attn1.to_q": 1.0}}, r"lora\.alpha_pattern: to_q and attn1\.to_q both fit"),
        ({"alpha_pattern": {"o_q": 4.0}}, r"lora\.alpha_pattern: no adapted layer ends with o_q"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(tiny_base: Path, lora: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        initial_policy(ModelSettings.model_validate({"base": str(tiny_base), "lora": lora}), 0)


@pytest.mark.parametrize("types", [{"dtype": "bfloat16"}, {"dtypes": {"unet": "float16"}}])
def test_what_pissa_leaves_is_not_rounded(tiny_base: Path, types: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"lora\.init: got 'pissa', and .* is of b?float16.*model\.dtype: float32"):
        initial_policy(settings(tiny_base, "pissa of patterns", **types), 0)


def test_two_ways_to_take_weights_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="dora and init: pissa are both given"):
        ModelSettings.model_validate({"base": "zoo://emoji", "lora": {"dora": True, "init": "pissa"}})

"""Rounded base weights: they stay as they are, and the gradient is that of the weights that they stand for."""

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from transformers import T5Config, T5EncoderModel

from sdo_ray.cheap_steps.fast_copy import FastCopy
from sdo_ray.cheap_steps.settings import CopySettings
from sdo_ray.evaluation.models import WholeModel
from sdo_ray.models.adapter_file import load_adapter
from sdo_ray.models.export import ADAPTER, MODEL, export_model, product
from sdo_ray.models.fingerprint import fingerprint
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach, attach_working_copy, initial_policy, load_model
from sdo_ray.models.quantised import NEEDED, Rounding, is_quantised, quantise, quantised_bytes
from sdo_ray.models.settings import ModelSettings
from sdo_ray.settings import SettingsError
from tests.models.draws import draw, moved

LORA = {"rank": 2, "alpha": 6.0, "targets": ["to_q", "ff.net.2"]}


def needs(to: Rounding) -> Any:
    package = NEEDED[to][0]
    return pytest.param(to, marks=pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=package))


ROUNDINGS = [needs("int8"), needs("nf4")]


def settings(base: Path, to: str, **changes: Any) -> ModelSettings:
    return ModelSettings.model_validate({"base": str(base), "quantize": {"unet": to}, "lora": LORA, **changes})


def stood_for(weight: Any) -> torch.Tensor:
    """What a rounded weight is, by its own library."""
    if not hasattr(weight, "quant_state"):
        return weight.dequantize()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def plain_twin(rounded: torch.nn.Module, twin: torch.nn.Module) -> torch.nn.Module:
    """`twin`, an unquantised copy, with the weights that the rounded ones stand for."""
    for name, layer in rounded.named_modules():
        if isinstance(layer, torch.nn.Linear) and is_quantised(layer.weight):
            with torch.no_grad():
                twin.get_submodule(name).weight.copy_(stood_for(layer.weight))
    return twin


@pytest.mark.parametrize("to", ROUNDINGS)
def test_the_gradient_is_that_of_the_weights_that_they_stand_for(tiny_base: Path, to: str) -> None:
    model = settings(tiny_base, to)
    rounded, plain = load_model(model).unet, load_pipeline(str(tiny_base)).unet
    before = plain_state(rounded)
    plain_twin(rounded, plain)
    weights = moved(initial_policy(model, 0))
    config = plain.config
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(2, config.in_channels, config.sample_size, config.sample_size, generator=noise)
    states = torch.randn(2, 4, config.cross_attention_dim, generator=noise)
    outputs, gradients = [], []
    for unet in (rounded, plain):
        trained = attach_working_copy({"unet": unet}, model)
        set_parameters(trained, weights)
        start = x.clone().requires_grad_()
        outputs.append(unet(start, 3, states).sample)
        outputs[-1].square().sum().backward()
        parameters = trained_parameters(trained)
        assert all(p.dtype == torch.float32 for p in parameters.values())
        gradients.append({"x": start.grad} | {name: p.grad for name, p in parameters.items()})
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-4)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[1].items():
        off = (gradients[0][name] - gradient).norm() / gradient.norm()
        assert off < 1e-4, name
    # Learning leaves them as they are.
    torch.optim.SGD([p for p in rounded.parameters() if p.requires_grad], lr=1.0).step()
    after = {name.replace("base_layer.", ""): w for name, w in plain_state(rounded).items() if "lora_" not in name}
    assert after.keys() == before.keys()
    assert all(torch.equal(w, after[name]) for name, w in before.items())


def plain_state(unet: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: (stood_for(p) if is_quantised(p) else p.detach()).clone() for name, p in unet.named_parameters()}


def t5() -> torch.nn.Module:
    config = {"vocab_size": 32, "d_model": 64, "d_kv": 8, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    return T5EncoderModel(T5Config(**config, feed_forward_proj="gated-gelu"))


def wan() -> torch.nn.Module:
    config = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 32}
    return WanTransformer3DModel(patch_size=(1, 2, 2), **config, ffn_dim=64, num_layers=2, rope_max_seq_len=32)


INPUTS: dict[Any, dict[str, torch.Tensor]] = {
    t5: {"input_ids": torch.arange(1, 13).view(2, 6)},
    wan: {
        "hidden_states": torch.linspace(-1, 1, 256).view(1, 4, 1, 8, 8),
        "timestep": torch.tensor([437.5]),
        "encoder_hidden_states": torch.linspace(-1, 1, 192).view(1, 6, 32),
    },
}


@pytest.mark.parametrize("make", INPUTS)
@pytest.mark.parametrize("to", ROUNDINGS)
def test_models_that_ask_weights_for_their_type_compute_with_what_they_stand_for(make: Any, to: Rounding) -> None:
    torch.manual_seed(0)
    rounded = make().requires_grad_(False).eval()
    twin = copy.deepcopy(rounded)
    quantise(rounded, to)
    assert sum(is_quantised(p) for p in rounded.parameters()) > 4
    plain_twin(rounded, twin)
    with torch.no_grad():
        found, expected = (model(**INPUTS[make])[0] for model in (rounded, twin))
    assert (found - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("to", ROUNDINGS)
def test_both_models_of_the_closing_comparison_have_rounded_weights(tiny_base: Path, to: Rounding) -> None:
    base = WholeModel(str(tiny_base), "float32", rounding={"unet": to})
    assert torch.equal(draw(base.load("cpu")), draw(load_model(settings(tiny_base, to))))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("to", ROUNDINGS)
def test_a_lora_on_rounded_weights_fits_the_base_as_it_was(
    tiny_base: Path, tmp_path: Path, to: str, dtype: str
) -> None:
    model = settings(tiny_base, to, dtype=dtype, quantize={"unet": to, "text_encoder": to})
    pipeline = load_model(model)
    rounded = draw(pipeline)
    assert rounded.isfinite().all()
    trained, initial = attach_working_copy(pipeline.components, model), initial_policy(model, 0)
    set_parameters(trained, initial)
    assert torch.equal(draw(pipeline), rounded)
    weights = moved(initial)
    set_parameters(trained, weights)
    export_model(tmp_path, model, weights)
    again = load_model(model)
    load_adapter(again, str(tmp_path / ADAPTER))
    most = 1e-5 if dtype == "float32" else 1e-2
    torch.testing.assert_close(draw(again), draw(pipeline), rtol=0, atol=most)
    whole = load_pipeline(str(tiny_base), dtype)
    load_adapter(whole, str(tmp_path / ADAPTER))
    assert 0 < (draw(whole) - draw(pipeline)).abs().mean() < 0.01


@pytest.mark.parametrize("to", ROUNDINGS)
def test_a_complete_model_comes_out_unrounded(tmp_path: Path, to: str) -> None:
    """Of a pipeline that diffusers has no adapter file for."""
    lora = {"rank": 2, "targets": ["to_q"], "text_encoder_targets": ["query"]}
    model = ModelSettings.model_validate({"base": "zoo://emoji", "quantize": {"unet": to}, "lora": lora})
    assert product(model) == MODEL
    weights = moved(initial_policy(model, 0))
    export_model(tmp_path, model, weights)
    pipeline = load_pipeline("zoo://emoji")
    trained = attach(pipeline.components, model)
    set_parameters(trained, weights)
    model.kind.merge(trained)
    out = load_pipeline(str(tmp_path / MODEL)).unet.state_dict()
    assert all(torch.equal(w, out[name]) for name, w in pipeline.unet.state_dict().items())


def stored(tensor: Any) -> int:
    """Bytes, of all that a rounded weight is made of."""
    if hasattr(tensor, "quant_state"):
        state = tensor.quant_state
        parts = [tensor.data, state.absmax, state.state2.absmax]
    elif is_quantised(tensor):
        parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    else:
        parts = [tensor]
    return sum(part.numel() * part.element_size() for part in parts if part is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("to", ROUNDINGS)
def test_the_bytes_that_are_counted_are_those_that_are_kept(to: Any, dtype: torch.dtype) -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(1024, 2048), torch.nn.Conv2d(4, 8, 3), torch.nn.Linear(2048, 512))
    layers.to(dtype).requires_grad_(False)
    whole, counted = sum(map(stored, layers.parameters())), quantised_bytes(layers, to)
    quantise(layers, to)
    kept = sum(map(stored, layers.parameters()))
    assert whole - counted == pytest.approx(kept, rel=0.01)
    assert kept < whole / (1.7 if dtype == torch.bfloat16 else 3.5)


@pytest.mark.parametrize("to", ROUNDINGS)
def test_processes_that_hold_other_rounded_weights_are_told(tiny_base: Path, to: Any) -> None:
    unet = load_model(settings(tiny_base, to)).unet
    same, other = load_model(settings(tiny_base, to)).unet, copy.deepcopy(load_pipeline(str(tiny_base)).unet)
    next(layer for layer in other.modules() if isinstance(layer, torch.nn.Linear)).weight.data[0] *= 2
    quantise(other, to)
    found = [fingerprint(part.state_dict()) for part in (unet, same, other)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("to", ROUNDINGS)
def test_a_merged_copy_of_rounded_weights_is_refused(tiny_base: Path, to: str) -> None:
    with pytest.raises(SettingsError, match=r"the unet has quantised weights already.*model\.quantize"):
        FastCopy("unet", load_model(settings(tiny_base, to)).unet, CopySettings(dtype="bfloat16"))


def test_unknown_components_are_refused(tiny_base: Path) -> None:
    with pytest.raises(SettingsError, match=r"quantize: .* has no transformer with weights.*unet"):
        load_pipeline(str(tiny_base), rounding={"transformer": "int8"})


@pytest.mark.parametrize("to", NEEDED)
def test_what_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch, to: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=rf"model\.quantize: got '{to}', which needs {NEEDED[to][0]}.*pip install"):
        quantise(torch.nn.Linear(2, 2), to, "model.quantize")


@pytest.mark.parametrize("changes", [{"train": "full"}, {"lora": {"dora": True}}, {"lora": {"init": "pissa"}}])
def test_what_is_made_of_the_weights_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`quantize` rounds weights that what is trained is made of"):
        ModelSettings.model_validate({"base": "zoo://emoji", "quantize": {"unet": "int8"}, **changes})

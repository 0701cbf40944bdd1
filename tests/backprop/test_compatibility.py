"""What would falsify a gradient is refused by name before sampling starts; what would not is exact."""

import copy
import sys
import types
from collections.abc import Callable
from typing import Any

import accelerate
import pytest
import torch
from diffusers.hooks import HookRegistry, ModelHook, apply_group_offloading
from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic

from sdo_ray.backprop import BackpropPlan, KeptCall, TraceError, differentiable_sample, make_plan, surrogate

from .tiny import gradients, reward, seeded, stable_diffusion, stable_diffusion_3, trained

N = 3
SDO = make_plan("sdo", N, draw="fixed", at=[1])
CPU = torch.device("cpu")


def call() -> dict[str, Any]:
    return {"prompt": "a cat", "guidance_scale": 3.0, "num_inference_steps": N, "generator": seeded(1)}


class Remembers(ModelHook):
    """A hook with a state, as a cache has one."""

    _is_stateful = True

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        return module


def no_grad_hook(pipe: Any) -> None:
    hook = accelerate.hooks.ModelHook()
    hook.no_grad = True
    accelerate.hooks.add_hook_to_module(pipe.transformer.transformer_blocks[0], hook)


def stateful_hook(pipe: Any) -> None:
    block = pipe.transformer.transformer_blocks[1]
    HookRegistry.check_if_exists_or_initialize(block).register_hook(Remembers(), "remembers")


def foreign_forward(pipe: Any) -> None:
    """A stand-in for what DeepCache does, which puts functions of its own in the place of forwards."""
    block = pipe.transformer.transformer_blocks[0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return type(block).forward(block, *args, **kwargs)

    wrapped.__module__ = "DeepCache.extension.deepcache"
    block.forward = wrapped


def dynamic_int8(pipe: Any) -> None:
    names = {f"transformer_blocks.{i}.ff.net.2": default_dynamic_qconfig for i in range(2)}
    quantize_dynamic(pipe.transformer, names, dtype=torch.qint8, inplace=True)


def quanto_activations(pipe: Any) -> None:
    """A stand-in for a layer of optimum-quanto."""
    pipe.transformer.transformer_blocks[0].ff.net[2].activation_qtype = "qint8"


def model_offload(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def sequential_offload(pipe: Any) -> None:
    accelerate.cpu_offload(pipe.transformer, execution_device=CPU)


def group_offload(pipe: Any) -> None:
    pipe.transformer.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")


def casting_of_what_is_trained(pipe: Any) -> None:
    pipe.transformer.requires_grad_(True)
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


def casting_of_convolutions(pipe: Any) -> None:
    pipe.vae.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


REFUSED: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "quantised activations": (dynamic_int8, "transformer", "torch.ao.nn.quantized.dynamic.modules.linear.Linear"),
    "quantised activations of quanto": (quanto_activations, "transformer", "Linear with activations of qint8"),
    "cache of another package": (foreign_forward, "transformer", "a cache of DeepCache"),
    "stateful hook": (stateful_hook, "transformer", "test_compatibility.Remembers"),
    "hook without gradients": (no_grad_hook, "transformer", "under no_grad"),
    "model offloading": (model_offload, "transformer", r"offloading \(CpuOffload\)"),
    "sequential offloading": (sequential_offload, "transformer", r"offloading \(AlignDevicesHook\)"),
    "group offloading": (group_offload, "transformer", r"group offloading \(GroupOffloadingHook\)"),
    "casting of what is trained": (casting_of_what_is_trained, "transformer", "layerwise casting of a trained Linear"),
    "casting of convolutions": (casting_of_convolutions, "vae", "layerwise casting of a Conv2d"),
}


@pytest.mark.parametrize(("switch_on", "component", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_before_a_step_is_taken(switch_on: Callable[[Any], Any], component: str, named: str) -> None:
    pipe = stable_diffusion_3()
    switch_on(pipe)
    denoised: list[int] = []
    pipe.transformer.register_forward_hook(lambda *_: denoised.append(1))
    with pytest.raises(TraceError, match=named) as refused:
        differentiable_sample(pipe, SDO, **call())
    assert refused.value.field == f"pipeline.{component}"
    assert refused.value.fix
    assert not denoised


def test_torchao_by_what_its_weights_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torchao's tensors: the weight alone quantised is let through, activations as well are refused."""

    class Int8Tensor(torch.Tensor):
        act_quant_kwargs: Any = None

    Int8Tensor.__module__ = "torchao.quantization"
    monkeypatch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
    pipe = stable_diffusion_3()
    layer = pipe.transformer.transformer_blocks[0].ff.net[2]
    layer.weight = torch.nn.Parameter(layer.weight.detach().as_subclass(Int8Tensor), requires_grad=False)
    assert differentiable_sample(pipe, SDO, **call()).requires_grad
    monkeypatch.setattr(Int8Tensor, "act_quant_kwargs", "per row")
    with pytest.raises(TraceError, match="Int8Tensor with act_quant_kwargs"):
        differentiable_sample(pipe, SDO, **call())


@pytest.mark.parametrize("switch_on", [sequential_offload, group_offload], ids=["sequential", "group"])
def test_weights_that_move_are_fine_where_no_graph_is_kept(switch_on: Callable[[Any], Any]) -> None:
    pipe, bare = stable_diffusion_3(), stable_diffusion_3()
    expected = differentiable_sample(bare, SDO, **call())
    switch_on(pipe)
    calls: list[KeptCall] = []
    images = differentiable_sample(pipe, SDO, elsewhere=calls, **call())
    assert torch.equal(images, expected)
    reward(images).backward()
    (kept,) = calls
    direct = surrogate(bare.transformer, kept.args, kept.kwargs, kept.gradients())
    for g, e in zip(torch.autograd.grad(direct, trained(bare)), gradients(bare, expected), strict=True):
        assert torch.allclose(g, e, rtol=1e-4, atol=1e-6)
    empty = differentiable_sample(pipe, BackpropPlan("empty", N), **call())
    assert torch.equal(empty, bare(**call(), output_type="pt").images)


def test_layerwise_casting_of_frozen_linear_layers() -> None:
    """Equal to the bit to the same rounded weights, kept in the dtype that they are used in."""
    pipe, rounded = stable_diffusion_3(), stable_diffusion_3()
    for p in (p for p in pipe.transformer.parameters() if p.requires_grad):
        p.data = p.data.bfloat16().float()
    rounded.transformer.load_state_dict(copy.deepcopy(pipe.transformer.state_dict()))
    skipped = ("lora", "pos_embed", "norm")
    pipe.transformer.enable_layerwise_casting(torch.bfloat16, torch.float32, skip_modules_pattern=skipped)
    cast = [n for n, p in pipe.transformer.named_parameters() if p.dtype is torch.bfloat16]
    assert cast
    for name in cast:
        rounded.transformer.get_parameter(name).data = pipe.transformer.get_parameter(name).data.float()
    images, expected = (differentiable_sample(p, SDO, **call()) for p in (pipe, rounded))
    assert torch.equal(images, expected)
    assert all(map(torch.equal, gradients(pipe, images), gradients(rounded, expected)))


def test_a_frozen_text_encoder_may_be_offloaded() -> None:
    pipe = stable_diffusion_3()
    expected = differentiable_sample(pipe, SDO, **call())
    apply_group_offloading(pipe.text_encoder, CPU, CPU, offload_type="leaf_level")
    images = differentiable_sample(pipe, SDO, **call())
    assert torch.equal(images, expected)
    assert all(map(torch.equal, gradients(pipe, images), gradients(pipe, expected)))


def test_inference_mode() -> None:
    pipe = stable_diffusion()
    with torch.inference_mode(), pytest.raises(TraceError, match="outside of it") as refused:
        differentiable_sample(pipe, SDO, **call())
    assert refused.value.field == "torch.inference_mode"
    with torch.inference_mode():
        plain = pipe(**call(), output_type="pt").images
        assert torch.equal(differentiable_sample(pipe, BackpropPlan("empty", N), **call()), plain)

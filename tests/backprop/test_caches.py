"""With any cache of diffusers on, a kept step is the denoiser's own, and the other steps go on using the cache."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch

from sdo_ray.backprop import BackpropPlan, KeptCall, TraceError, differentiable_sample, make_plan, surrogate
from sdo_ray.backprop.caches import cache_hooks

from .matrix.assemble import assemble, inputs
from .matrix.cases import CASES
from .matrix.check import adapt
from .matrix.parts import part
from .tiny import assert_same, double, reward, seeded

N = 6


@dataclasses.dataclass(frozen=True)
class Cached:
    """A pipeline of the matrix, the cache's settings (made for the pipeline), and what differs in the denoiser."""

    pipeline: str
    config: Callable[[Any], Any]
    denoiser: dict[str, Any] = dataclasses.field(default_factory=dict)
    call: dict[str, Any] = dataclasses.field(default_factory=dict)


def timestep(pipe: Any) -> Callable[[], int]:
    return lambda: int(pipe._current_timestep) if pipe._current_timestep is not None else 0


def faster(pipe: Any, **more: Any) -> Any:
    return diffusers.FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 999),
        unconditional_batch_timestep_skip_range=(-1, 1001),
        attention_weight_callback=lambda _: 0.3,
        current_timestep_callback=timestep(pipe),
        **more,
    )


def broadcast(pipe: Any) -> Any:
    return diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 1001),
        spatial_attention_block_identifiers=("blocks",),
        current_timestep_callback=timestep(pipe),
    )


BLOCKS = {"num_layers": 2, "num_single_layers": 2}
TAYLOR = {"cache_interval": 3, "disable_cache_before_step": 1, "taylor_factors_dtype": torch.float64}
CACHES = {
    "FirstBlock, Flux": Cached("Flux", lambda _: diffusers.FirstBlockCacheConfig(threshold=10.0), BLOCKS),
    "FirstBlock, Wan": Cached("Wan", lambda _: diffusers.FirstBlockCacheConfig(threshold=10.0), {"num_layers": 3}),
    "TaylorSeer, Flux": Cached("Flux", lambda _: diffusers.TaylorSeerCacheConfig(**TAYLOR), BLOCKS),
    "TaylorSeer lite, Flux": Cached(
        "Flux", lambda _: diffusers.TaylorSeerCacheConfig(use_lite_mode=True, **TAYLOR), BLOCKS
    ),
    "Mag, Flux": Cached(
        "Flux",
        lambda _: diffusers.MagCacheConfig(
            threshold=10.0, max_skip_steps=2, retention_ratio=0.1, num_inference_steps=N, mag_ratios=[1.0] * N
        ),
        BLOCKS,
    ),
    "PyramidAttentionBroadcast, Flux": Cached("Flux", broadcast, BLOCKS),
    "PyramidAttentionBroadcast, CogVideoX": Cached("CogVideoX", broadcast, {"num_layers": 2}),
    "Faster, Flux": Cached("Flux", lambda pipe: faster(pipe, is_guidance_distilled=True, tensor_format="BCHW"), BLOCKS),
    "Faster, CogVideoX": Cached("CogVideoX", lambda pipe: faster(pipe, tensor_format="BFCHW"), {"num_layers": 2}),
    "Sea, Wan": Cached("Wan", lambda _: diffusers.SeaCacheConfig(threshold=10.0), {"num_layers": 3}),
    "TextKV, NucleusMoEImage": Cached("NucleusMoEImage", lambda _: diffusers.TextKVCacheConfig()),
    "TextKV in the call's own arguments": Cached(
        "NucleusMoEImage", lambda _: diffusers.TextKVCacheConfig(), call={"attention_kwargs": {"scale": 1.0}}
    ),
}
PLANS = {
    "sdo": make_plan("sdo", N, draw="fixed", at=[3]),
    "first": make_plan("sdo", N, draw="fixed", at=[0]),
    "two kept": make_plan("sdo", N, K=2, draw="fixed", at=[2, 5]),
}


def made(case: Cached) -> tuple[Any, Callable[[], dict[str, Any]], list[torch.nn.Parameter]]:
    changes = dict(CASES[case.pipeline].parts)
    if case.denoiser:
        name = {"Flux": "FluxTransformer2DModel", "Wan": "WanTransformer3DModel"}
        changes = {"transformer": part(name.get(case.pipeline, "CogVideoXTransformer3DModel"), **case.denoiser)}
    pipe = assemble(f"{case.pipeline}Pipeline", changes)
    parameters = adapt(pipe)
    double(pipe)
    arguments = inputs(pipe, CASES[case.pipeline].call | {"num_inference_steps": N} | case.call)
    arguments = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    return pipe, lambda: copy.deepcopy(arguments) | {"generator": seeded(1)}, parameters


@pytest.mark.parametrize("case", CACHES.values(), ids=CACHES.keys())
def test_a_kept_step_goes_past_the_cache(case: Cached) -> None:
    pipe, call, parameters = made(case)
    uncached = pipe(**call())[0]
    bare = copy.deepcopy(pipe.transformer)
    pipe.transformer.enable_cache(case.config(pipe))
    assert cache_hooks(pipe.transformer)
    cached = pipe(**call())[0]
    if "TextKV" not in type(pipe.transformer._cache_config).__name__:  # which is exact
        assert not torch.equal(cached, uncached)
    assert torch.equal(differentiable_sample(pipe, BackpropPlan("empty", N), **call()), cached)
    for plan in PLANS.values():
        images = differentiable_sample(pipe, plan, **call())
        got = torch.autograd.grad(reward(images), parameters)
        calls: list[KeptCall] = []
        again = differentiable_sample(pipe, plan, elsewhere=calls, **call())
        assert torch.equal(images, again)
        reward(again).backward()
        expected = [torch.zeros_like(p) for p in parameters]
        for kept in calls:
            direct = surrogate(bare, kept.args, kept.kwargs, kept.gradients())
            for total, g in zip(expected, torch.autograd.grad(direct, trained(bare)), strict=True):
                total += g
        assert_same(list(got), expected)


def trained(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


@pytest.mark.parametrize("name", ["FirstBlock, Flux", "PyramidAttentionBroadcast, Flux", "TaylorSeer, Flux"])
def test_a_kept_step_that_is_run_again_goes_past_the_cache_again(name: str) -> None:
    pipe, call, parameters = made(CACHES[name])
    pipe.transformer.enable_cache(CACHES[name].config(pipe))
    images, again = (
        differentiable_sample(pipe, make_plan("draft", N, K=2, checkpoint=checkpoint), **call())
        for checkpoint in (False, True)
    )
    assert torch.equal(images, again)
    expected = torch.autograd.grad(reward(images), parameters)
    assert_same(list(torch.autograd.grad(reward(again), parameters)), list(expected))
    copies = make_plan("draft-lv", N, n=1, generator=seeded())
    renoised = torch.autograd.grad(reward(differentiable_sample(pipe, copies, **call())), parameters)
    assert all(g.abs().max() > 0 for g in renoised)


def test_the_surrogate_goes_past_the_cache() -> None:
    pipe, call, parameters = made(CACHES["PyramidAttentionBroadcast, Flux"])
    bare = copy.deepcopy(pipe.transformer)
    pipe.transformer.enable_cache(broadcast(pipe))
    calls: list[KeptCall] = []
    reward(differentiable_sample(pipe, PLANS["sdo"], elsewhere=calls, **call())).backward()
    (kept,) = calls
    direct, expected = (
        surrogate(denoiser, kept.args, kept.kwargs, kept.gradients()) for denoiser in (pipe.transformer, bare)
    )
    got = torch.autograd.grad(direct, parameters)
    assert_same(list(got), list(torch.autograd.grad(expected, trained(bare))))


def test_a_cache_is_empty_after_a_call_that_raised() -> None:
    pipe, call, _ = made(CACHES["PyramidAttentionBroadcast, Flux"])
    pipe.transformer.enable_cache(broadcast(pipe))
    first = pipe(**call())[0]

    def fail(_pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        raise RuntimeError("stopped by the test")

    with pytest.raises(RuntimeError, match="stopped by the test"):
        differentiable_sample(pipe, PLANS["first"], callback_on_step_end=fail, **call())
    assert torch.equal(differentiable_sample(pipe, BackpropPlan("empty", N), **call()), first)


def test_blocks_that_are_run_again_are_refused() -> None:
    pipe, call, _ = made(CACHES["FirstBlock, Flux"])
    pipe.transformer.enable_gradient_checkpointing()
    differentiable_sample(pipe, PLANS["sdo"], **call())
    pipe.transformer.enable_cache(CACHES["FirstBlock, Flux"].config(pipe))
    with pytest.raises(TraceError, match="gradient checkpointing and a cache, FBCHeadBlockHook") as refused:
        differentiable_sample(pipe, PLANS["sdo"], **call())
    assert refused.value.field == "pipeline.transformer"
    differentiable_sample(pipe, BackpropPlan("empty", N), **call())
    differentiable_sample(pipe, PLANS["sdo"], elsewhere=[], **call())

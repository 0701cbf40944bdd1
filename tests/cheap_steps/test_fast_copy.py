"""The copy computes what the denoiser computes, follows what is trained, and the kept step never runs on it."""

import copy
from typing import Any

import pytest
import torch

from sdo_ray.backprop import BackpropPlan, KeptCall, TraceError, differentiable_sample, make_plan, run_by, surrogate
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.runner import CheapRunner
from sdo_ray.cheap_steps.settings import CacheSettings, CopySettings
from sdo_ray.models.trained import diffit, full
from sdo_ray.models.trained.diffit import DiffFitSettings
from sdo_ray.settings import SettingsError
from tests.backprop.matrix.assemble import assemble, inputs
from tests.backprop.matrix.cases import CASES
from tests.backprop.matrix.check import adapt
from tests.backprop.test_caches import CACHES, made
from tests.backprop.tiny import (
    assert_same,
    denoiser_of,
    double,
    gradients,
    reward,
    seeded,
    stable_diffusion,
    stable_diffusion_3,
    trained,
)

N = 6
PLAN = make_plan("sdo", N, draw="fixed", at=[3])
NOTHING_KEPT = BackpropPlan("empty", N)


def call(**more: Any) -> dict[str, Any]:
    return {"prompt": "a cat", "guidance_scale": 3.0, "num_inference_steps": N, "generator": seeded(1)} | more


def runner_of(pipe: Any, cache: CacheSettings | None = None, **how: Any) -> CheapRunner:
    runner = choose_runner(pipe, cache, CopySettings(**how), N)
    assert isinstance(runner, CheapRunner)
    return runner


def with_diffit(pipe: Any) -> Any:
    pipe.unet.delete_adapters("default")
    diffit.attach({"unet": pipe.unet}, DiffFitSettings())
    return pipe


def with_full(pipe: Any) -> Any:
    pipe.unet.delete_adapters("default")
    full.attach({"unet": pipe.unet}, None)
    return pipe


PIPELINES = {
    "a LoRA on a UNet": stable_diffusion,
    "a LoRA on a transformer": stable_diffusion_3,
    "DiffFit": lambda: with_diffit(stable_diffusion()),
    "all of it": lambda: with_full(stable_diffusion()),
}


@pytest.mark.parametrize("made", PIPELINES.values(), ids=PIPELINES.keys())
def test_a_copy_of_the_same_type_samples_the_same_and_follows_what_is_trained(made: Any) -> None:
    pipe = double(made())
    runner = runner_of(pipe)
    for step in range(3):
        plain = differentiable_sample(pipe, NOTHING_KEPT, **call())
        runs: list[int] = []
        counter = denoiser_of(pipe).register_forward_hook(lambda *_, runs=runs: runs.append(1))
        copied = differentiable_sample(pipe, NOTHING_KEPT, runner=runner, **call())
        counter.remove()
        assert not runs
        assert (plain - copied).abs().max() < 1e-9
        with torch.no_grad():
            for p in trained(pipe):
                p.add_(torch.randn(p.shape, generator=seeded(step), dtype=p.dtype), alpha=0.1)
        assert (differentiable_sample(pipe, NOTHING_KEPT, **call()) - plain).abs().max() > 1e-6
    names = [name for name, _ in runner.copies[next(iter(runner.copies))].module.named_modules()]
    assert not [name for name in names if "lora" in name]


@pytest.mark.parametrize("cache", [None, CacheSettings(name="taylor"), CacheSettings(name="deepcache")])
def test_a_kept_step_runs_on_the_denoiser_itself(cache: CacheSettings | None) -> None:
    pipe = double(stable_diffusion())
    bare, runner = copy.deepcopy(pipe.unet), runner_of(pipe, cache, dtype="float32")
    images = differentiable_sample(pipe, PLAN, runner=runner, **call())
    got = gradients(pipe, images)
    calls: list[KeptCall] = []
    again = differentiable_sample(pipe, PLAN, runner=runner, elsewhere=calls, **call())
    assert torch.equal(images, again)
    reward(again).backward()
    direct = surrogate(bare, calls[0].args, calls[0].kwargs, calls[0].gradients())
    assert_same(got, list(torch.autograd.grad(direct, [p for p in bare.parameters() if p.requires_grad])))
    assert images.dtype is torch.float64
    assert not torch.equal(images, differentiable_sample(pipe, PLAN, **call()))


@pytest.mark.parametrize("made", [stable_diffusion, stable_diffusion_3])
@pytest.mark.parametrize("name", ["taylor", "modules", None])
def test_half_precision_is_near(made: Any, name: str | None) -> None:
    pipe = made()
    blocks = [r"(down|up)_blocks\.1"] if made is stable_diffusion else [r"transformer_blocks\.\d+\.ff"]
    cache = name and CacheSettings(name=name, every=2, modules=blocks if name == "modules" else [])
    runner = runner_of(pipe, cache or None, dtype="bfloat16")
    plain = differentiable_sample(pipe, PLAN, **call(output_type="latent"))
    fast = differentiable_sample(pipe, PLAN, runner=runner, **call(output_type="latent"))
    assert fast.dtype is torch.float32
    off = (fast - plain).norm() / plain.norm()
    assert 0 < off < (0.03 if name is None else 0.5)
    assert {p.dtype for p in denoiser_of(pipe).parameters()} == {torch.float32}


def test_a_pipeline_that_changes_its_denoiser_for_its_call_is_refused() -> None:
    pipe = stable_diffusion()
    runner = runner_of(pipe)

    def others(_pipe: Any, *_: Any) -> dict[str, Any]:
        pipe.unet.set_attn_processor(copy.deepcopy(pipe.unet.attn_processors))
        return {}

    with pytest.raises(TraceError, match=r"sampling\.fast_copy: got 'a pipeline that puts other attention processors"):
        differentiable_sample(pipe, PLAN, runner=runner, callback_on_step_end=others, **call())


def test_hooks_that_a_copy_would_share_are_refused() -> None:
    pipe = stable_diffusion()
    pipe.unet.mid_block.forward = pipe.unet.mid_block.forward
    with pytest.raises(SettingsError, match="fast_copy: the unet has 'forward' on its module 'mid_block'"):
        choose_runner(pipe, None, CopySettings(), N)
    flux, sampled, _ = made(CACHES["FirstBlock, Flux"])
    flux(**sampled())  # leaves a registry in its denoiser, without hooks
    assert choose_runner(flux, None, CopySettings(), N) is not None
    flux.transformer.enable_cache(CACHES["FirstBlock, Flux"].config(flux))
    with pytest.raises(SettingsError, match="fast_copy: the transformer has 'FBCHeadBlockHook'"):
        choose_runner(flux, None, CopySettings(), N)
    with pytest.raises(SettingsError, match="a cache in the denoiser itself, with `fast_copy`"):
        choose_runner(pipe, CacheSettings(name="pab"), CopySettings(), N)


def test_a_copy_in_half_precision_takes_times_as_precise_as_they_are() -> None:
    pipe = assemble("AceStepPipeline", CASES["AceStep"].parts)
    adapt(pipe)
    arguments = inputs(pipe, CASES["AceStep"].call)
    plain = pipe(**arguments, generator=seeded(1))[0]
    with run_by(runner_of(pipe, dtype="bfloat16"), pipe, 2):
        fast = pipe(**arguments, generator=seeded(1))[0]
    assert 0 < (fast - plain).norm() / plain.norm() < 0.1

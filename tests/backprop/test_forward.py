"""The images of a traced call are those of the plain call, to the bit, and the pipeline is left as it was."""

import copy
from typing import Any

import diffusers
import pytest
import torch

from sdo_ray.backprop import BackpropPlan, StepGradient, TraceError, differentiable_sample, make_plan, trace

from .tiny import ddim, denoiser_of, seeded, stable_diffusion, stable_diffusion_3, trained

N = 4
PLANS = {
    "nothing kept": BackpropPlan("empty", N),
    "sdo": make_plan("sdo", N, draw="fixed", at=[1]),
    "draft": make_plan("draft", N, K=2),
    "full": make_plan("full", N),
    "scaled and coupled": BackpropPlan("own", N, {0: StepGradient(2.0, 0.5), 2: StepGradient(3.0, 0.25)}),
}


def call(guidance: float = 3.0, **more: Any) -> dict[str, Any]:
    generator = [seeded(1), seeded(2)]
    prompts = ["a cat", "dogs"]
    return {"prompt": prompts, "guidance_scale": guidance, "num_inference_steps": N, "generator": generator} | more


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("make", [stable_diffusion, stable_diffusion_3])
def test_images_are_those_of_the_plain_call(make: Any, guidance: float, plan: BackpropPlan) -> None:
    pipe = make()
    plain = pipe(**call(guidance), output_type="pt").images
    images = differentiable_sample(pipe, plan, **call(guidance))
    assert images.shape == (2, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(plain, images.detach())
    assert images.requires_grad == bool(plan.steps)


@pytest.mark.parametrize(
    "name",
    [
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
        "DDPMScheduler",
        "LCMScheduler",
        "LMSDiscreteScheduler",
        "DEISMultistepScheduler",
    ],
)
@pytest.mark.parametrize("seeds", ["one generator", "a generator per image"])
def test_schedulers(name: str, seeds: str) -> None:
    pipe = stable_diffusion(getattr(diffusers, name).from_config(ddim().config))

    def generator() -> Any:
        return seeded(1) if seeds == "one generator" else [seeded(1), seeded(2)]

    plain = pipe(**call(generator=generator()), output_type="pt").images
    for plan in (PLANS["sdo"], PLANS["full"]):
        images = differentiable_sample(pipe, plan, **call(generator=generator()))
        assert torch.equal(plain, images.detach())


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler"])
def test_schedulers_with_more_steps_than_asked_for(name: str) -> None:
    pipe = stable_diffusion(getattr(diffusers, name).from_config(ddim().config))
    plain = pipe(**call(), output_type="pt").images
    steps = len(pipe.scheduler.timesteps)
    images = differentiable_sample(pipe, make_plan("sdo", steps, draw="fixed", at=[steps - 1]), **call())
    assert torch.equal(plain, images.detach())
    with pytest.raises(TraceError, match=f"takes {steps} scheduler steps"):
        differentiable_sample(pipe, make_plan("sdo", steps + 1), **call())


def test_stochastic_ddim_gets_its_generator() -> None:
    pipe = stable_diffusion()
    plain = pipe(**call(eta=1.0), output_type="pt").images
    assert torch.equal(plain, differentiable_sample(pipe, PLANS["sdo"], **call(eta=1.0)).detach())


def test_latents() -> None:
    pipe = stable_diffusion()
    plain = pipe(**call(), output_type="latent").images
    assert torch.equal(plain, differentiable_sample(pipe, PLANS["sdo"], output_type="latent", **call()).detach())


def test_train_mode_dropout_and_checkpointing() -> None:
    pipe = stable_diffusion()
    pipe.unet.enable_gradient_checkpointing()
    pipe.unet.train()
    for module in pipe.unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    torch.manual_seed(5)
    plain = pipe(**call(), output_type="pt").images
    torch.manual_seed(5)
    images = differentiable_sample(pipe, PLANS["full"], **call())
    assert torch.equal(plain, images.detach())
    images.sum().backward()
    assert pipe.unet.training
    assert all(p.grad is not None for p in trained(pipe))


def test_gradient_under_autocast() -> None:
    pipe = stable_diffusion()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = pipe(**call(), output_type="pt").images
        images = differentiable_sample(pipe, make_plan("sdo", N, draw="fixed", at=[N - 1]), **call())
    assert torch.equal(plain, images.detach())
    images.float().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained(pipe))


def state(pipe: Any) -> dict[str, Any]:
    modules = [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
    return {
        "classes": [type(pipe), type(pipe.scheduler), *map(type, modules)],
        "forwards": ["forward" in vars(m) for m in modules],
        "calls": ["_compiled_call_impl" in vars(m) for m in modules],
        "training": [m.training for m in modules],
        "requires_grad": [p.requires_grad for m in modules for p in m.parameters()],
        "components": [id(c) for c in pipe.components.values()],
        "attributes": sorted(vars(pipe)),
        "grad": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("make", [stable_diffusion, stable_diffusion_3])
def test_pipeline_is_left_as_found(make: Any) -> None:
    pipe = make()
    pipe(**call())  # A first call sets attributes of its own.
    before = state(pipe)
    with torch.no_grad():
        images = differentiable_sample(pipe, PLANS["full"], **call())
    assert images.requires_grad
    assert state(pipe) == before
    held = [v for v in vars(pipe.scheduler).values() if isinstance(v, torch.Tensor) and v.requires_grad]
    assert not held

    def fail(*_: Any) -> None:
        raise RuntimeError("stopped by the test")

    with pytest.raises(RuntimeError, match="stopped by the test"):
        differentiable_sample(pipe, PLANS["full"], callback_on_step_end=fail, **call())
    assert state(pipe) == before


def test_a_forward_that_was_replaced_stays_replaced() -> None:
    pipe = stable_diffusion()
    calls = []
    original = pipe.unet.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    pipe.unet.forward = counting
    differentiable_sample(pipe, PLANS["sdo"], **call())
    assert pipe.unet.forward is counting
    assert len(calls) == N


def test_multistep_schedulers_do_not_hold_the_graph() -> None:
    pipe = stable_diffusion(diffusers.UniPCMultistepScheduler.from_config(ddim().config))
    differentiable_sample(pipe, PLANS["full"], **call())
    held = [*pipe.scheduler.model_outputs, pipe.scheduler.last_sample]
    assert all(isinstance(x, torch.Tensor) and not x.requires_grad for x in held)


def test_a_copy_of_the_scheduler_is_not_left_in_the_pipeline() -> None:
    pipe = stable_diffusion()

    def copied(pipe: Any, *_: Any) -> dict[str, Any]:
        pipe.scheduler = copy.deepcopy(pipe.scheduler)
        return {}

    before = state(pipe)
    plain = pipe(**call(callback_on_step_end=copied), output_type="pt").images
    pipe = stable_diffusion()
    images = differentiable_sample(pipe, PLANS["sdo"], **call(callback_on_step_end=copied))
    assert torch.equal(plain, images.detach())
    assert type(pipe.scheduler) is type(stable_diffusion().scheduler)
    assert state(pipe)["classes"] == before["classes"]


def test_steps_must_agree_with_the_plan() -> None:
    pipe = stable_diffusion()
    denoised = []
    denoiser_of(pipe).register_forward_hook(lambda *_: denoised.append(1))
    for steps, seen_after in ((N + 2, 1), (N - 1, N - 1)):
        with pytest.raises(TraceError, match="num_inference_steps") as caught:
            differentiable_sample(pipe, PLANS["sdo"], **call(num_inference_steps=steps))
        assert caught.value.field == "num_inference_steps"
        assert len(denoised) == seen_after
        denoised.clear()
    with pytest.raises(TraceError, match="takes more than 4 scheduler steps"):
        differentiable_sample(pipe, PLANS["sdo"], **call(num_inference_steps=N + 1))
    with pytest.raises(TraceError, match="takes 50 scheduler steps"):
        differentiable_sample(pipe, PLANS["sdo"], prompt="a cat")


def test_errors_of_the_call() -> None:
    pipe = stable_diffusion()
    with pytest.raises(TraceError, match="output_type: got 'pil'"):
        differentiable_sample(pipe, PLANS["sdo"], output_type="pil", **call())
    denoiser_of(pipe).requires_grad_(False)
    with pytest.raises(TraceError, match="add an adapter"):
        differentiable_sample(pipe, PLANS["sdo"], **call())
    del pipe.scheduler
    pipe.scheduler = None
    with pytest.raises(TraceError, match="scheduler"):
        differentiable_sample(pipe, PLANS["sdo"], **call())


def test_trace_as_a_block() -> None:
    pipe = stable_diffusion()
    with trace(pipe, PLANS["sdo"]) as tracing:
        images = pipe(**call(), output_type="pt").images
        assert tracing.steps_taken == N
    assert images.requires_grad
    assert not pipe(**call(), output_type="pt").images.requires_grad

"""The schedule that a pipeline samples with: solver weights against autograd, in every pipeline of the matrix.

With every step kept and nothing coupled, the gradient at output i is w_i dz_N/d(sample): the same vector times the
solver's weight. So the norms at the outputs are in the ratio of the weights, whatever the reward is.
"""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UnCLIPScheduler,
)

from sdo_ray.backprop import (
    BackpropPlan,
    GradientRecord,
    PlanError,
    StepGradient,
    available,
    called_scheduler,
    check_sampler_plan,
    differentiable_sample,
    sampler_plan,
    solver_weights,
)
from sdo_ray.backprop.patches import attention_processors

from .matrix.assemble import assemble, inputs
from .matrix.cases import CASES
from .matrix.check import adapt
from .test_pipelines import QUICK, WORKING

TOLERANCE = 1e-3
NOTHING: Mapping[str, Any] = {}

NOT_LINEAR = {
    "the pipeline itself changes the latents between steps": "CycleDiffusion Flux2KleinInpaint PRXPixel",
    "video and audio have a scheduler each": "LTX2 LTX2Condition LTX2ImageToVideo LTX2InContext",
    "a call goes through its steps several times": "LTX2DFRTemporalRefine LTXI2VLongMultiPrompt "
    "SkyReelsV2DiffusionForcingVideoToVideo",
    "latents are drawn with random frequencies that need more than a tiny one has": "HeliosPyramid",
    "weights of 157 and 0.01 are in one float32 sum": "StableDiffusionLatentUpscale",
}
"""Reason -> pipelines, without their "Pipeline", whose gradients are not in the ratio of their scheduler's weights."""

NO_WEIGHTS = {
    "steps take a timestep a sample": "StableCascadeCombined StableCascadeDecoder StableCascadePrior "
    "WuerstchenCombined WuerstchenDecoder WuerstchenPrior",
    "the result is another than the last latents": "SanaSprint SanaSprintImg2Img",
}
"""Reason -> pipelines of whose schedulers no weights are read; estimators that need them are refused."""

LINEAR = [name for name in WORKING if not any(name in names.split() for names in NOT_LINEAR.values())]
SOME = [name for name in QUICK if name in LINEAR]


def check(name: str, num_steps: int | None = None, parts: Mapping[str, Any] = NOTHING, **changes: Any) -> None:
    pipe = assemble(f"{name}Pipeline", CASES[name].parts | parts)
    arguments = inputs(pipe, CASES[name].call) | changes
    seeded = "generator" in inspect.signature(type(pipe).__call__).parameters

    def call() -> dict[str, Any]:
        return arguments | ({"generator": torch.Generator().manual_seed(3)} if seeded else {})

    adapt(pipe)
    scheduler = pipe.scheduler
    scheduler.register_to_config(**{"clip_sample": False} if "clip_sample" in scheduler.config else {})
    kind, config = type(scheduler), dict(scheduler.config)
    called = called_scheduler(pipe, **call())
    assert (pipe.scheduler, type(pipe.scheduler), dict(scheduler.config)) == (scheduler, kind, config)  # as it was
    assert type(called) is kind
    if any(name in names.split() for names in NO_WEIGHTS.values()):
        with pytest.raises(PlanError, match="scheduler"):
            solver_weights(called, None)
        return
    weights = solver_weights(called, None)
    n = weights.num_steps
    assert n == num_steps or num_steps is None
    record = GradientRecord()
    torch.manual_seed(2)
    plan = BackpropPlan("own", n, {i: StepGradient() for i in range(n)})
    images = differentiable_sample(pipe, plan, output_hook=record.watch, **call())
    (torch.linspace(-1, 1, images.numel()).reshape(images.shape) * images).sum().backward()
    norms = torch.tensor([record.norms.get(i, 0.0) for i in range(n)], dtype=torch.float64)
    w = weights.w.abs()
    assert torch.allclose(norms / norms.max(), w / w.max(), rtol=TOLERANCE, atol=1e-6), (norms, weights.w)


@pytest.mark.parametrize("name", sorted({*SOME, "FluxKontext", "QwenImage", "LTX", "Lumina2", "HunyuanVideo", "Wan"}))
def test_weights_are_autograd_s(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(LINEAR) - set(SOME)))
def test_weights_are_autograd_s_in_all_others(name: str) -> None:
    check(name)


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
@pytest.mark.parametrize("name", ["KandinskyPrior", "KandinskyV22Prior"])
def test_weights_are_of_the_steps_that_a_pipeline_tells_its_scheduler_of(name: str, kind: str) -> None:
    check(name, parts={"scheduler": UnCLIPScheduler(prediction_type=kind)}, num_inference_steps=3)


@pytest.mark.parametrize(
    ("name", "num_steps", "scheduler"),
    [
        ("StableDiffusionImg2Img", 2, DDIMScheduler),
        ("StableDiffusionImg2Img", 2, EulerDiscreteScheduler),
        ("StableDiffusionImg2Img", 2, DPMSolverMultistepScheduler),
        ("StableDiffusionImg2Img", 3, HeunDiscreteScheduler),  # two steps of two calls, the last of one
        ("StableDiffusionInpaint", 3, partial(PNDMScheduler, skip_prk_steps=True)),
        ("FluxImg2Img", 3, None),
        ("StableDiffusion3Img2Img", 3, None),
    ],
)
def test_image_to_image_takes_the_last_steps(name: str, num_steps: int, scheduler: Any) -> None:
    """A strength of 0.5 of five steps."""
    parts = NOTHING if scheduler is None else {"scheduler": scheduler()}
    check(name, num_steps, parts, num_inference_steps=5, strength=0.5)


@pytest.fixture
def flux() -> Any:
    """A tiny FLUX with dynamic shifting, as FLUX.1-dev has it."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
    pipe = assemble("FluxPipeline", CASES["Flux"].parts | {"scheduler": scheduler})
    adapt(pipe)
    return pipe


@pytest.mark.parametrize("name", available())
def test_every_estimator_samples_a_flux_with_dynamic_shifting(flux: Any, name: str) -> None:
    call = inputs(flux, CASES["Flux"].call) | {"num_inference_steps": 5}
    # Its weights are a matter of the size of the image: the scheduler alone cannot tell them, and the check needs not.
    with pytest.raises(PlanError, match="mu"):
        solver_weights(flux.scheduler, 5)
    assert check_sampler_plan(flux.scheduler, 5, name, {})
    called = called_scheduler(flux, **call)
    plan = sampler_plan(called, None, name, generator=torch.Generator().manual_seed(0))
    assert plan.num_steps == 5
    images = differentiable_sample(flux, plan, generator=torch.Generator().manual_seed(3), **call)
    images.sum().backward()
    trained = [p for p in flux.transformer.parameters() if p.requires_grad]
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trained)


def test_schnell_s_last_step_counts_as_the_others(flux: Any) -> None:
    """At N = 4, `set_timesteps(4)` alone says weights of a third each and a thousandth for the last step."""
    call = inputs(flux, CASES["Flux"].call) | {"num_inference_steps": 4}
    flux.scheduler = FlowMatchEulerDiscreteScheduler()
    assert solver_weights(flux.scheduler, 4).w[-1].abs() < 0.002
    w = solver_weights(called_scheduler(flux, **call), None).w
    torch.testing.assert_close(w, torch.full((4,), -0.25, dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_call_that_is_left_in_its_middle_leaves_the_denoiser_as_it_was() -> None:
    """Perturbed attention puts processors in for its call."""
    pipe = assemble("StableDiffusionPAGPipeline", CASES["StableDiffusionPAG"].parts)
    before = attention_processors(pipe.unet)
    called_scheduler(pipe, **inputs(pipe, CASES["StableDiffusionPAG"].call))
    assert all(a is b for (_, a), (_, b) in zip(before, attention_processors(pipe.unet), strict=True))

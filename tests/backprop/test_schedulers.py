"""Every scheduler of diffusers: images unchanged and weights that are the sampler's own, or a reason why not.

The images are made with the tiny pipelines in float64, so that gradients can be compared (see `assert_same`).
"""

import functools
import inspect
from typing import Any

import diffusers
import pytest
import torch
from diffusers import SchedulerMixin

from sdo_ray.backprop import (
    BackpropPlan,
    GradientRecord,
    PlanError,
    StepGradient,
    differentiable_sample,
    solver_weights,
)

from .tiny import assert_same, ddim, double, gradients, seeded, stable_diffusion, stable_diffusion_3

STEPS = 4
FLOW = {"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"}
OTHER = {  # Not for latents that a denoiser's output moves along, or of a kind that only its own pipeline can step.
    "AmusedScheduler": "discrete tokens",
    "BlockRefinementScheduler": "discrete tokens",
    "CogVideoXDPMScheduler": "step takes the step before as well; runs in its pipeline",
    "DDPMWuerstchenScheduler": "step takes a timestep per sample; runs in its pipeline",
    "DiscreteDDIMScheduler": "discrete tokens",
    "EntropyBoundScheduler": "discrete tokens",
    "HeliosDMDScheduler": "stages set by its pipeline",
    "HeliosScheduler": "stages set by its pipeline",
    "KarrasVeScheduler": "step takes noised latents as well",
    "PiflowScheduler": "step takes a policy network's output",
    "RFD4ProteinaScheduler": "protein coordinates",
    "RePaintScheduler": "step takes the image and mask as well",
    "SCMScheduler": "two steps only, by its pipeline",
    "ScoreSdeVeScheduler": "predictor and corrector steps of its own",
    "VQDiffusionScheduler": "discrete tokens",
}
WEIGHTS_ONLY = {  # Linear, but made for a pipeline with other timesteps or signs than the two tiny ones.
    "FlowMapEulerDiscreteScheduler",
    "LTXEulerAncestralRFScheduler",
    "MiniMaxH3Scheduler",
    "UnCLIPScheduler",
}


def shipped() -> list[str]:
    names = []
    for name in dir(diffusers):
        # Names whose own package is missing are placeholders, not schedulers.
        cls = getattr(diffusers, name, None) if "Scheduler" in name else None
        if inspect.isclass(cls) and issubclass(cls, SchedulerMixin) and cls is not SchedulerMixin:
            names.append(name)
    return names


LATENTS = [name for name in shipped() if name not in OTHER and name not in WEIGHTS_ONLY]


@functools.cache
def pipeline(kind: Any) -> Any:
    return double(kind())


def pipeline_with(name: str) -> Any:
    pipe = pipeline(stable_diffusion_3 if name in FLOW else stable_diffusion)
    cls = getattr(diffusers, name)
    pipe.scheduler = cls() if name in FLOW else cls.from_config(ddim().config)
    return pipe


def call(pipe: Any, output_type: str = "pt") -> dict[str, Any]:
    torch.manual_seed(7)  # FlowMatchLCM is not given the generator by its pipeline.
    common = {"prompt": "a cat", "guidance_scale": 3.0, "num_inference_steps": STEPS, "output_type": output_type}
    # The pipeline's eta of 0 is not TCD's default, with which its weights are read.
    eta = {"eta": 0.3} if type(pipe.scheduler) is diffusers.TCDScheduler else {}
    return common | eta | {"generator": seeded(1)}


def test_every_scheduler_is_here_or_has_a_reason() -> None:
    assert set(OTHER) | WEIGHTS_ONLY <= set(shipped())
    assert len(LATENTS) >= 25


@pytest.mark.parametrize("name", LATENTS)
def test_images_and_gradients(name: str) -> None:
    pipe = pipeline_with(name)
    plain = pipe(**call(pipe)).images
    n = len(pipe.scheduler.timesteps)

    def sampled(steps: dict[int, StepGradient]) -> torch.Tensor:
        return differentiable_sample(pipe, BackpropPlan("own", n, steps), **call(pipe))

    every = sampled({i: StepGradient() for i in range(n)})
    assert torch.equal(plain, every.detach())
    # Outputs that the scheduler does not use (KDPM2's first half-steps, CM's start) have no gradient to add.
    used = [i for i, w_i in enumerate(solver_weights(pipe.scheduler, STEPS).w) if w_i]
    singles = [gradients(pipe, sampled({i: StepGradient()})) for i in used]
    assert_same([sum(g) for g in zip(*singles, strict=True)], gradients(pipe, every))


@pytest.mark.parametrize("name", LATENTS)
def test_weights_are_those_of_the_sampler(name: str) -> None:
    pipe = pipeline_with(name)
    weights = solver_weights(pipe.scheduler, STEPS)
    record = GradientRecord()
    every = BackpropPlan("own", weights.num_steps, {i: StepGradient() for i in range(weights.num_steps)})
    z_N = differentiable_sample(pipe, every, output_hook=record.watch, **call(pipe, "latent"))
    z_N.sum().backward()
    measured = [record.norms.get(i, 0.0) / z_N.numel() ** 0.5 for i in range(weights.num_steps)]
    # Schedules are float32; relative to the largest, for some weights are what is left of a difference.
    assert measured == pytest.approx(weights.w.abs().tolist(), abs=1e-4 * float(weights.w.abs().max()))


@pytest.mark.parametrize("name", sorted(WEIGHTS_ONLY))
def test_weights_exist(name: str) -> None:
    assert solver_weights(getattr(diffusers, name)(), STEPS).w.abs().max() > 0


@pytest.mark.parametrize("name", sorted(OTHER))
def test_others_are_refused_by_name(name: str) -> None:
    cls = getattr(diffusers, name)
    required = {
        p.name: 1 for p in inspect.signature(cls.__init__).parameters.values() if p.default is p.empty and p.kind == 1
    }
    required.pop("self")
    if name == "RFD4ProteinaScheduler":
        required = required | {"schedule_mode": "log", "noise_mode": "tan"}  # type: ignore[assignment]
    with pytest.raises(PlanError, match=name):
        solver_weights(cls(**required), STEPS)


def test_thresholding_is_refused() -> None:
    with pytest.raises(PlanError, match=r"scheduler.thresholding: got True"):
        solver_weights(ddim(thresholding=True), STEPS)


def test_probing_leaves_scheduler_and_generator_alone() -> None:
    scheduler = diffusers.EulerAncestralDiscreteScheduler()
    scheduler.set_timesteps(7)
    before, state = scheduler.timesteps.clone(), torch.get_rng_state()
    solver_weights(scheduler, STEPS)
    assert torch.equal(scheduler.timesteps, before)
    assert torch.equal(torch.get_rng_state(), state)

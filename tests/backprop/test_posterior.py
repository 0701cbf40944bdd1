"""The posterior mean is the one the scheduler itself uses, where it tells."""

from typing import Any

import diffusers
import pytest
import torch

from sdo_ray.backprop import TraceError
from sdo_ray.backprop.posterior import noise_level, posterior_mean

from .tiny import ddim, seeded

N = 6
TELL = {  # Schedulers whose step returns `pred_original_sample`, and what they are asked to predict.
    "DDIMScheduler": ("epsilon", "sample", "v_prediction"),
    "DDPMScheduler": ("epsilon", "sample", "v_prediction"),
    "EulerDiscreteScheduler": ("epsilon", "sample", "v_prediction"),
    "EulerAncestralDiscreteScheduler": ("epsilon", "v_prediction"),
    "HeunDiscreteScheduler": ("epsilon", "v_prediction"),
    "LMSDiscreteScheduler": ("epsilon", "v_prediction"),
    "KDPM2DiscreteScheduler": ("epsilon", "v_prediction"),
    "KDPM2AncestralDiscreteScheduler": ("epsilon", "v_prediction"),
}
CONVERT = {  # Those whose `convert_model_output` gives it.
    "DPMSolverMultistepScheduler": ("epsilon", "sample", "v_prediction", "flow_prediction"),
    "DPMSolverSinglestepScheduler": ("epsilon", "sample", "v_prediction", "flow_prediction"),
    "UniPCMultistepScheduler": ("epsilon", "sample", "v_prediction", "flow_prediction"),
    "SASolverScheduler": ("epsilon", "sample", "v_prediction", "flow_prediction"),
}


def scheduler_of(name: str, kind: str) -> Any:
    config = dict(ddim().config) | {"prediction_type": kind, "use_flow_sigmas": kind == "flow_prediction"}
    scheduler = getattr(diffusers, name).from_config(config, clip_sample=False)
    scheduler.set_timesteps(N)
    return scheduler


def cases(table: dict[str, tuple[str, ...]]) -> Any:
    return pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in table.items() for kind in kinds])


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (torch.randn(2, 4, 3, 3, generator=seeded(i), dtype=torch.float64) for i in (1, 2))
    return first, second


@cases(TELL)
def test_against_the_step(name: str, kind: str) -> None:
    scheduler = scheduler_of(name, kind)
    z, o = tensors()
    for t in scheduler.timesteps:
        scheduler.scale_model_input(z, t)
        xhat = posterior_mean(scheduler, o, t, z)
        tells = scheduler.step(o, t, z)
        # float32: the schedules are; relative to the tensor, for z and sigma o cancel at high noise.
        assert (xhat - tells.pred_original_sample).abs().max() <= 1e-5 * xhat.abs().max()
        z = tells.prev_sample.to(torch.float64)


@cases(CONVERT)
def test_against_the_conversion(name: str, kind: str) -> None:
    scheduler = scheduler_of(name, kind)
    z, o = tensors()
    for t in scheduler.timesteps:
        xhat = posterior_mean(scheduler, o, t, z)
        if scheduler.step_index is None:
            scheduler._init_step_index(t)
        expected = scheduler.convert_model_output(o, sample=z)
        assert (xhat - expected).abs().max() <= 1e-5 * xhat.abs().max()
        z = scheduler.step(o, t, z).prev_sample


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_preconditioned(name: str) -> None:
    scheduler = getattr(diffusers, name)()
    scheduler.set_timesteps(N)
    z, o = tensors()
    for t in scheduler.timesteps:
        scheduler.scale_model_input(z, t)
        xhat = posterior_mean(scheduler, o, t, z)
        sigma = scheduler.sigmas[scheduler.step_index or 0]
        torch.testing.assert_close(xhat, scheduler.precondition_outputs(z, o, sigma).to(xhat), rtol=1e-5, atol=1e-5)
        z = scheduler.step(o, t, z).prev_sample.to(torch.float64)


def test_flow_matching() -> None:
    """The last step of an Euler sampler on straight lines ends at the posterior mean."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(N)
    z, o = tensors()
    for t in scheduler.timesteps[:-1]:
        z = scheduler.step(o, t, z).prev_sample.to(torch.float64)
    t = scheduler.timesteps[-1]
    xhat = posterior_mean(scheduler, o, t, z)
    torch.testing.assert_close(xhat, scheduler.step(o, t, z).prev_sample.to(xhat), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_noise_level_inverts(name: str) -> None:
    """z = alpha x_0 + sigma eps, with the model predicting eps exactly, gives x_0 back."""
    scheduler = scheduler_of(name, "epsilon")
    x_0, eps = tensors()
    t = scheduler.timesteps[0]
    alpha, sigma = noise_level(scheduler, t)
    xhat = posterior_mean(scheduler, eps, t, alpha * x_0 + sigma * eps)
    torch.testing.assert_close(xhat, x_0, rtol=1e-4, atol=1e-4)


def test_learned_variance_is_dropped() -> None:
    scheduler = scheduler_of("DDPMScheduler", "epsilon")
    z, o = tensors()
    t = scheduler.timesteps[2]
    assert torch.equal(posterior_mean(scheduler, torch.cat([o, z], 1), t, z), posterior_mean(scheduler, o, t, z))


def test_a_scheduler_that_does_not_tell() -> None:
    scheduler = diffusers.KarrasVeScheduler()
    z, o = tensors()
    with pytest.raises(TraceError, match="KarrasVeScheduler"):
        posterior_mean(scheduler, o, torch.tensor(1), z)

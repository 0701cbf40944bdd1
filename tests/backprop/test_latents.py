"""Gradients with respect to the latents z_k of every step, and to the guidance scale.

    sdo at k    dR/dz_k = (a_k I + w_k do_k/dz_k)^T g          the outputs of other steps are held
    full        dR/dz_k by everything that follows from z_k

A small real UNet with guidance, and central differences of R along a random direction. Their error is of the order of
h^2 and of eps / h: near 1e-8 with DDIM in float64; the other two schedulers step in float32 whatever they are given, so
h is larger and the tolerance too. Closed forms for a linear denoiser are in test_closed_form.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from sdo_ray.backprop import BackpropPlan, TraceError, differentiable_sample, make_plan

from .tiny import ddim, double, reward, seeded, stable_diffusion, stable_diffusion_3

N = 4
GUIDANCE = 3.0
CALL: dict[str, Any] = {"prompt": ["a cat", "dogs"], "num_inference_steps": N}
Outputs = list[tuple[torch.Tensor, torch.Tensor]]
"""Of each step: o_0 without and o_c with the prompt."""


def dpm() -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler.from_config(ddim().config)


def euler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler.from_config(ddim().config)


@pytest.fixture(params=[ddim, dpm, euler])
def pipe(request: pytest.FixtureRequest) -> Any:
    """Nothing in it is trained: what is differentiated is given in the call."""
    pipe = double(stable_diffusion(request.param()))
    pipe.unet.requires_grad_(False)
    return pipe


def noise(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=seeded(seed), dtype=torch.float64)


class Loop:
    """The sampler's loop by hand, with latents that can be moved at one step and outputs that can be held."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        with torch.no_grad():
            c, c_0 = pipe.encode_prompt(CALL["prompt"], "cpu", 1, True)
        self.conditions = torch.cat([c_0, c])

    @torch.no_grad()
    def __call__(
        self,
        z: torch.Tensor,
        *,
        k: int = 0,
        shift: torch.Tensor | float = 0.0,
        guidance: float = GUIDANCE,
        held: Outputs | None = None,
        computed: tuple[int, ...] = (),
    ) -> tuple[float, Outputs]:
        """R with `shift` added to z_k; with `held`, only the steps `computed` see what has moved."""
        scheduler = type(self.pipe.scheduler).from_config(self.pipe.scheduler.config)
        scheduler.set_timesteps(N)
        z, outputs = z * scheduler.init_noise_sigma, []
        for i, t in enumerate(scheduler.timesteps):
            z = z + shift if i == k else z
            seen = torch.cat([scheduler.scale_model_input(z, t)] * 2)
            o_0, o_c = self.pipe.unet(seen, t, self.conditions).sample.chunk(2)
            if held is not None and i not in computed:
                o_0, o_c = held[i]
            outputs.append((o_0, o_c))
            z = scheduler.step(o_0 + guidance * (o_c - o_0), t, z).prev_sample
        images = (self.pipe.vae.decode(z / self.pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
        return reward(images).item(), outputs


def assert_derivative(pipe: Any, got: float, of: Callable[[float], float]) -> None:
    """`got` is the derivative of `of` at 0."""
    exact = isinstance(pipe.scheduler, DDIMScheduler)
    h = 1e-4 if exact else 1e-2
    assert got == pytest.approx((of(h) - of(-h)) / (2 * h), rel=1e-6 if exact else 2e-3)


def sampled(pipe: Any, plan: BackpropPlan, **more: Any) -> torch.Tensor:
    return differentiable_sample(pipe, plan, **({"guidance_scale": GUIDANCE} | CALL | more))


def at_latents(pipe: Any, plan: BackpropPlan, k: int) -> torch.Tensor:
    """dR/dz_k, at k = 0 from the call's `latents`, which the pipeline scales, and later from a shift of zeros."""
    z = noise(1).requires_grad_(k == 0)
    zeros = torch.zeros_like(z, requires_grad=True)
    images = sampled(pipe, plan, latents=z, shifts={k: zeros} if k else None)
    if k:
        return torch.autograd.grad(reward(images), zeros)[0]
    return torch.autograd.grad(reward(images), z)[0] / pipe.scheduler.init_noise_sigma


@pytest.mark.parametrize("k", range(N))
def test_of_the_kept_step(pipe: Any, k: int) -> None:
    d_z, direction, loop = at_latents(pipe, make_plan("sdo", N, draw="fixed", at=[k]), k), noise(2), Loop(pipe)
    _, held = loop(noise(1))
    got = (d_z * direction).sum().item()
    assert_derivative(pipe, got, lambda h: loop(noise(1), k=k, shift=h * direction, held=held, computed=(k,))[0])
    direct = (at_latents(pipe, BackpropPlan("empty", N), k) * direction).sum().item()
    assert k == N - 1 or abs(got - direct) > 0.01 * abs(direct), "both terms count, if little at the last step"


@pytest.mark.parametrize("kept", [2, 3])
def test_of_a_step_before_the_kept_one(pipe: Any, kept: int) -> None:
    """z_1 reaches o_kept by the linear path from z_1 to z_kept: the steps between are held."""
    d_z, direction, loop = at_latents(pipe, make_plan("sdo", N, draw="fixed", at=[kept]), 1), noise(2), Loop(pipe)
    _, held = loop(noise(1))
    got = (d_z * direction).sum().item()
    assert_derivative(pipe, got, lambda h: loop(noise(1), k=1, shift=h * direction, held=held, computed=(kept,))[0])


@pytest.mark.parametrize("k", range(N))
def test_of_everything_that_follows(pipe: Any, k: int) -> None:
    d_z, direction, loop = at_latents(pipe, make_plan("full", N), k), noise(2), Loop(pipe)
    assert_derivative(pipe, (d_z * direction).sum().item(), lambda h: loop(noise(1), k=k, shift=h * direction)[0])


def test_the_final_latents_and_steps_that_are_none(pipe: Any) -> None:
    zeros = torch.zeros(2, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    empty = BackpropPlan("empty", N)
    images = sampled(pipe, empty, latents=noise(1), shifts={N: zeros})
    assert torch.equal(images, sampled(pipe, empty, latents=noise(1)))
    g = torch.autograd.grad(reward(images), zeros)[0]
    z_N = sampled(pipe, empty, latents=noise(1), output_type="latent").requires_grad_()
    image = (pipe.vae.decode(z_N / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(g, torch.autograd.grad(reward(image), z_N)[0], rtol=1e-9, atol=1e-15)
    for k in (0, N + 1):
        with pytest.raises(TraceError, match="shifts: got "):
            sampled(pipe, empty, shifts={k: zeros})


@pytest.mark.parametrize("build", [stable_diffusion, stable_diffusion_3])
def test_a_guidance_scale_with_a_gradient_draws_the_same(build: Callable[[], Any]) -> None:
    pipe = build()
    plan = make_plan("sdo", N, draw="fixed", at=[1])
    scale = torch.tensor(7.3, requires_grad=True)
    images = sampled(pipe, plan, guidance_scale=scale, generator=seeded(3))
    assert torch.equal(images, sampled(pipe, plan, guidance_scale=7.3, generator=seeded(3)))
    assert torch.autograd.grad(reward(images), scale)[0].abs() > 0


def test_of_the_guidance_scale(pipe: Any) -> None:
    """Every step's direct term, w_i <o_c - o_0, g>, and the nested one of the first kept step."""

    def d_scale(plan: BackpropPlan) -> float:
        scale = torch.tensor(GUIDANCE, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(reward(sampled(pipe, plan, latents=noise(1), guidance_scale=scale)), scale)[0].item()

    loop = Loop(pipe)
    _, held = loop(noise(1))
    for k in range(N):
        got = d_scale(make_plan("sdo", N, draw="fixed", at=[k]))
        assert_derivative(pipe, got, lambda h, k=k: loop(noise(1), guidance=GUIDANCE + h, held=held, computed=(k,))[0])  # type: ignore[misc]
    assert_derivative(pipe, d_scale(make_plan("full", N)), lambda h: loop(noise(1), guidance=GUIDANCE + h)[0])

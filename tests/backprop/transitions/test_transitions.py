"""Kernels against the formulas they were published with, against diffusers' own stochastic steps, and their limits."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from sdo_ray.backprop import PlanError
from sdo_ray.backprop.transitions import KERNELS, linear_steps, transitions
from tests.backprop.tiny import ddim, seeded

from .schedules import FIRST_ORDER, SCHEDULES, N, flow, of

SHAPE = (2, 3, 4, 4)


def numbers(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=seeded(seed), dtype=torch.float64)


def test_sde_is_flow_grpo_s() -> None:
    """mu and q as in equation (9) of arXiv 2505.05470, written with sigma_t there."""
    x, v, scheduler = numbers(1), numbers(2), flow()
    sigmas = scheduler.sigmas.double().tolist()
    for k, transition in enumerate(transitions(scheduler, "sde", 0.7)):
        s, d = sigmas[k], sigmas[k + 1] - sigmas[k]
        h = 0.7 * math.sqrt(s / (1 - (s if s < 1 else sigmas[1])))
        mu = x * (1 + h**2 / (2 * s) * d) + v * (1 + h**2 * (1 - s) / (2 * s)) * d
        torch.testing.assert_close(transition.mean(x + d * v, x, v), mu, rtol=1e-5, atol=1e-5)
        assert transition.std == pytest.approx(h * math.sqrt(-d), rel=1e-6)
        assert transition.weight == pytest.approx(d * (1 + h**2 * (1 - s) / (2 * s)), rel=1e-5)


def test_dance_is_the_equation_through_the_score() -> None:
    """arXiv 2505.07818: mu = x + v d + eta^2/2 score d (-1), score = -(x - (1 - s) xhat) / s^2."""
    x, v, scheduler, eta = numbers(1), numbers(2), flow(), 0.3
    sigmas = scheduler.sigmas.double().tolist()
    for k, transition in enumerate(transitions(scheduler, "dance", eta)):
        s, d = sigmas[k], sigmas[k + 1] - sigmas[k]
        score = -(x - (1 - s) * (x - s * v)) / s**2
        mu = x + v * d - eta**2 / 2 * score * d
        torch.testing.assert_close(transition.mean(x + d * v, x, v), mu, rtol=1e-5, atol=1e-5)
        assert transition.std == pytest.approx(eta * math.sqrt(-d), rel=1e-6)


def test_dance_is_sde_with_one_strength_at_all_levels() -> None:
    x, v, scheduler, eta = numbers(1), numbers(2), flow(), 0.3
    sigmas = scheduler.sigmas.double().tolist()
    for k, dance in enumerate(transitions(scheduler, "dance", eta)):
        s, d = sigmas[k], sigmas[k + 1] - sigmas[k]
        h_of_one = math.sqrt(s / (1 - (s if s < 1 else sigmas[1])))
        sde = transitions(scheduler, "sde", eta / h_of_one)[k]
        torch.testing.assert_close(dance.mean(x + d * v, x, v), sde.mean(x + d * v, x, v))
        assert (dance.std, dance.weight) == (pytest.approx(sde.std), pytest.approx(sde.weight))


def test_cps_as_published() -> None:
    x, v, scheduler, eta = numbers(1), numbers(2), flow(), 0.8
    for k, transition in enumerate(transitions(scheduler, "cps", eta)):
        s, after = scheduler.sigmas.double().tolist()[k : k + 2]
        q = after * math.sin(eta * math.pi / 2)
        mu = (1 - after) * (x - s * v) + math.sqrt(after**2 - q**2) * (x + (1 - s) * v)
        torch.testing.assert_close(transition.mean(x + (after - s) * v, x, v), mu, rtol=1e-5, atol=1e-5)
        assert transition.std == pytest.approx(q, rel=1e-6)
        assert transition.weight == pytest.approx(-s * (1 - after) + (1 - s) * math.sqrt(after**2 - q**2), rel=1e-5)


def test_flash_goes_from_nothing_to_the_second_level() -> None:
    scheduler, eta = flow(), 0.7
    sigmas = scheduler.sigmas.double().tolist()
    for k, transition in enumerate(transitions(scheduler, "flash", eta)):
        assert transition.std == pytest.approx(eta * sigmas[1] * sigmas[k] * math.sqrt(sigmas[k] - sigmas[k + 1]))


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_is_diffusers_ddim(eta: float) -> None:
    scheduler, z, o, noise = of("DDIM"), numbers(1), numbers(2), numbers(3)
    for t, transition in zip(scheduler.timesteps[:-1], transitions(scheduler, "ddim", eta), strict=True):
        theirs = scheduler.step(o, t, z, eta=eta, variance_noise=noise).prev_sample
        stepped = scheduler.step(o, t, z).prev_sample
        torch.testing.assert_close(
            transition.mean(stepped, z, o) + transition.std * noise, theirs, rtol=1e-5, atol=1e-5
        )


def test_ddim_is_the_ancestral_step_where_variance_explodes() -> None:
    z, o = numbers(1), numbers(2)
    theirs, euler = EulerAncestralDiscreteScheduler(), of("EulerDiscrete")
    theirs.set_timesteps(N)
    made = transitions(euler, "ddim", 1.0)
    for k, t in enumerate(theirs.timesteps[:-1]):
        for scheduler in (theirs, euler):
            scheduler.scale_model_input(z, t)
        with torch.random.fork_rng():
            expected = theirs.step(o, t, z, generator=seeded(5)).prev_sample
        noise = torch.randn(SHAPE, generator=seeded(5), dtype=o.dtype)
        got = made[k].mean(euler.step(o, t, z).prev_sample, z, o) + made[k].std * noise
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_cps_of_all_the_noise_is_the_stochastic_step_of_flow_matching() -> None:
    plain, theirs = flow(), FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    theirs.set_timesteps(N)
    x, v = numbers(1).float(), numbers(2).float()
    for t, transition in zip(plain.timesteps[:-1], transitions(flow(), "cps", 1.0), strict=True):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            expected = theirs.step(v, t, x).prev_sample
            torch.manual_seed(4)
            noise = torch.randn_like(x)
        got = transition.mean(plain.step(v, t, x).prev_sample, x, v) + transition.std * noise
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_ou_solves_the_equation_of_sde() -> None:
    """dx = (v + h^2 / (2 s) (x + (1 - s) v)) ds with xhat held: many small Euler steps of its mean and variance."""
    xhat, ehat, eta, scheduler = 0.7, -1.3, 0.7, flow()
    sigmas = scheduler.sigmas.double()
    for k, transition in enumerate(transitions(scheduler, "ou", eta)):
        if k == 0:
            continue  # from pure noise, where the equation has no beginning
        s, after = sigmas[k].item(), sigmas[k + 1].item()
        x = (1 - s) * xhat + s * ehat
        v = ehat - xhat
        mean, variance, n = x, 0.0, 20000
        for j in range(n):
            at = s + (after - s) * j / n
            d, h2 = (after - s) / n, eta**2 * at / (1 - at)
            pull = h2 / (2 * at)
            noise_now = (mean - (1 - at) * xhat) / at
            mean += d * (noise_now - xhat + pull * noise_now)
            variance += d * (2 * (1 / at + pull / at) * variance - h2)
        stepped = torch.tensor(x + (after - s) * v)
        assert transition.mean(stepped, torch.tensor(x), torch.tensor(v)).item() == pytest.approx(mean, abs=2e-4)
        assert transition.std == pytest.approx(math.sqrt(variance), rel=2e-3)


def test_ou_twice_is_ou_over_both_and_has_ddpm_s_posterior_at_root_two() -> None:
    one, two = flow(4), flow(8)
    two.sigmas = torch.tensor([1.0, 0.9, 0.8, 0.6, 0.5, 0.35, 0.2, 0.1, 0.0])
    two.timesteps = 1000 * two.sigmas[:-1]
    one.sigmas, one.timesteps = two.sigmas[::2], two.timesteps[::2]
    long, short = transitions(one, "ou", 0.9), transitions(two, "ou", 0.9)
    levels = [step.sigma for step in linear_steps(two)]
    for k in (1, 2):
        rho = [math.sqrt(1 - (made.std / level) ** 2) for made, level in zip(short, levels[1:], strict=True)]
        both = rho[2 * k] * rho[2 * k + 1]
        assert long[k].std == pytest.approx(levels[2 * k + 2] * math.sqrt(1 - both**2), rel=1e-6)
    for a, b in zip(transitions(flow(), "ou", math.sqrt(2)), transitions(flow(), "ddim", 1.0), strict=True):
        assert (a.std, a.weight) == pytest.approx((b.std, b.weight), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kernel", ["cps", "ddim", "ou"])
@pytest.mark.parametrize("name", FIRST_ORDER)
def test_true_latents_and_noise_give_the_schedule_s_own_mean_and_variance(name: str, kernel: str) -> None:
    scheduler = of(name, **SCHEDULES[name])
    steps = linear_steps(scheduler)
    for k, transition in enumerate(transitions(scheduler, kernel)):
        step, after = steps[k], steps[k + 1]
        x, e = 1.0, torch.tensor(1.0, dtype=torch.float64)

        def mean(x: float, e: float, k: int = k, transition: Any = transition) -> float:
            step, after = steps[k], steps[k + 1]
            z = step.alpha * x + step.sigma * e
            o = (x - step.clean_of_sample * z) / step.clean_of_output
            stepped = after.alpha * x + after.sigma * e
            return transition.mean(*(torch.tensor(value, dtype=torch.float64) for value in (stepped, z, o))).item()

        assert mean(x, 0.0) == pytest.approx(after.alpha * x, rel=1e-6, abs=1e-5 * step.sigma)
        assert mean(0.0, e.item()) ** 2 + transition.std**2 == pytest.approx(after.sigma**2, rel=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_output_s_weight_is_autograd_s(name: str, kernel: str) -> None:
    """Through the scheduler's own step, with the history that multistep solvers have by then."""
    scheduler = of(name, **SCHEDULES[name])
    if KERNELS[kernel].flow_only and name != "FlowMatchEulerDiscrete":
        with pytest.raises(PlanError, match="is an equation of flow matching"):
            transitions(scheduler, kernel)
        return
    made, z = transitions(scheduler, kernel), numbers(0).float()
    for k, t in enumerate(scheduler.timesteps[:-1]):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(z, t)
        o = numbers(k + 1).float().requires_grad_()
        mu = made[k].mean(scheduler.step(o, t, z).prev_sample, z, o)
        (c,) = torch.autograd.grad(mu.sum(), o, retain_graph=True)
        scale = max(abs(made[k].weight), abs(made[k].of_output))
        torch.testing.assert_close(c, torch.full_like(c, made[k].weight), rtol=1e-4, atol=1e-5 * scale)
        z = mu.detach()


@pytest.mark.parametrize("kernel", KERNELS)
def test_little_noise_is_little_change(kernel: str) -> None:
    x, v, scheduler = numbers(1), numbers(2), flow()
    for transition, (s, after) in zip(
        transitions(scheduler, kernel, 1e-4), pairwise(scheduler.sigmas.double().tolist()), strict=False
    ):
        stepped = x + (after - s) * v
        if transition.std > 1e-3:  # ou makes new noise of pure noise, at any strength
            assert (kernel, s) == ("ou", 1.0)
            continue
        torch.testing.assert_close(transition.mean(stepped, x, v), stepped, rtol=1e-5, atol=1e-5)
        assert transition.weight == pytest.approx(after - s, rel=1e-4)


def test_learned_variance_has_no_part() -> None:
    made = transitions(of("DDIM"), "ddim")[2]
    z, o = numbers(1), torch.cat([numbers(2), numbers(3)], 1)
    assert torch.equal(made.mean(z, z, o), made.mean(z, z, numbers(2)))


REFUSED = {
    "DDIM, clipping": (lambda: ddim().from_config({**ddim().config, "clip_sample": True}), "clip_sample is on"),
    "thresholding": (lambda: of("DPMSolverMultistep", thresholding=True), "thresholding is on"),
    "DDPM": (lambda: of("DDPM", clip_sample=False), "noise of their own"),
    "EulerAncestral": (lambda: of("EulerAncestralDiscrete"), "noise of their own"),
    "Heun": (lambda: of("HeunDiscrete"), "do not lower the noise level one by one"),
    "PNDM": (lambda: of("PNDM"), "do not lower the noise level one by one"),
    "UniPC": (lambda: of("UniPCMultistep"), "lose noise that was put in"),
    "single step": (lambda: of("DPMSolverSinglestep"), "lose noise that was put in"),
    "KDPM2": (lambda: of("KDPM2Discrete"), "lose noise that was put in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_scheduler_that_takes_no_noise_is_refused_with_the_reason(case: str) -> None:
    make, reason = REFUSED[case]
    scheduler = make()
    scheduler.set_timesteps(N)
    with pytest.raises(PlanError, match=reason):
        transitions(scheduler, "cps")


def test_unknown_kernels_and_strengths_are_refused() -> None:
    with pytest.raises(PlanError, match="one of cps, dance, ddim, flash, ou, sde"):
        transitions(flow(), "none")
    for eta in (0.0, -1.0, 1.5, math.nan, True):
        with pytest.raises(PlanError, match=r"eta: .* a number above 0 and up to 1"):
            transitions(flow(), "cps", eta)


def test_reading_steps_touches_neither_the_scheduler_nor_the_rng() -> None:
    scheduler = of("DPMSolverMultistep")
    state, config = torch.random.get_rng_state(), dict(scheduler.config)
    linear_steps(scheduler)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (scheduler.step_index, dict(scheduler.config)) == (None, config)

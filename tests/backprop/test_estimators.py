"""Each published estimator against its own construction, written out as a loop or as numbers."""

import statistics
from collections import Counter
from typing import Any

import diffusers
import pytest
import torch

from sdo_ray.backprop import (
    BackpropPlan,
    PlanError,
    SolverWeights,
    available,
    check_plan,
    differentiable_sample,
    make_plan,
    solver_weights,
)
from sdo_ray.backprop.estimators.flowbp_lagrange import quadrature, support_steps
from sdo_ray.backprop.posterior import noise_level, posterior_mean

from .tiny import assert_same, ddim, double, gradients, reward, seeded, stable_diffusion, stable_diffusion_3, trained

N = 5
PROMPTS = ["a cat", "dogs"]


def weights_of_flow(n: int = 25, **config: Any) -> SolverWeights:
    return solver_weights(diffusers.FlowMatchEulerDiscreteScheduler(**config), n)


def sampled(pipe: Any, plan: BackpropPlan, guidance: float = 1.0, **more: Any) -> torch.Tensor:
    call: dict[str, Any] = {"prompt": PROMPTS, "guidance_scale": guidance, "num_inference_steps": N}
    return differentiable_sample(pipe, plan, generator=seeded(3), **call, **more)


class ByHand:
    """Stable Diffusion's loop with a guidance scale of 3, one step at a time."""

    def __init__(self) -> None:
        self.pipe = double(stable_diffusion())
        with torch.no_grad():
            c, c_0 = self.pipe.encode_prompt(PROMPTS, "cpu", 1, True)
        self.c = torch.cat([c_0, c])
        self.z_0 = torch.randn(2, 4, 8, 8, generator=seeded(3), dtype=torch.float64)
        self.pipe.scheduler.set_timesteps(N)
        self.timesteps = self.pipe.scheduler.timesteps

    def o(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        o_0, o_c = self.pipe.unet(torch.cat([z] * 2), t, self.c).sample.chunk(2)
        return o_0 + 3.0 * (o_c - o_0)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (self.pipe.vae.decode(z / self.pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


def test_refl_sees_the_posterior_mean() -> None:
    hand, plan = ByHand(), make_plan("refl", N, late=3, generator=seeded(1))
    (k,) = plan.steps
    assert plan.reward_at == k < N - 1, "the seed draws a step with steps after it"
    z = hand.z_0
    for i, t in enumerate(hand.timesteps[: k + 1]):
        with torch.set_grad_enabled(i == k):
            o = hand.o(z, t)
        if i < k:
            z = hand.pipe.scheduler.step(o, t, z).prev_sample
    image = hand.decode(hand.pipe.scheduler.step(o, t, z).pred_original_sample)
    expected = gradients(hand.pipe, image)
    images = sampled(hand.pipe, plan, 3.0)
    # The scheduler's alphas are float32 and used in another order.
    torch.testing.assert_close(images, image, rtol=1e-6, atol=1e-6)
    for g, e in zip(gradients(hand.pipe, images), expected, strict=True):
        assert (g - e).abs().max() <= 1e-5 * e.abs().max()


def test_later_steps_are_skipped() -> None:
    pipe = stable_diffusion()
    calls, steps = [], []
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    pipe.unet.conv_in.register_forward_hook(lambda *_: calls.append(2))

    def stepped(_pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        steps.append(step)
        return {}

    plan = BackpropPlan("own", N, make_plan("sdo", 2, draw="fixed", at=[1]).steps, reward_at=1)
    sampled(pipe, plan, callback_on_step_end=stepped)
    assert calls == [2, 1] * 2
    assert steps == list(range(N))


def test_drtune_stops_early_and_learns_from_its_steps() -> None:
    hand = ByHand()
    plan = next(
        plan
        for seed in range(20)
        if (plan := make_plan("drtune", N, K=2, early_stop=0.8, generator=seeded(seed))).reward_at == 3
    )
    z = hand.z_0
    for i, t in enumerate(hand.timesteps[:4]):
        with torch.set_grad_enabled(i in plan.steps):
            o = hand.o(z.detach(), t)
        xhat = posterior_mean(hand.pipe.scheduler, o, t, z)
        z = hand.pipe.scheduler.step(o, t, z).prev_sample
    expected = gradients(hand.pipe, hand.decode(xhat))
    assert_same(gradients(hand.pipe, sampled(hand.pipe, plan, 3.0)), expected)


def test_draft_lv_averages_over_copies() -> None:
    hand, plan = ByHand(), make_plan("draft-lv", N, n=2, generator=seeded(0))
    scheduler = hand.pipe.scheduler
    with torch.no_grad():
        z = hand.z_0
        for t in hand.timesteps[:-1]:
            z = scheduler.step(hand.o(z, t), t, z).prev_sample
        t = hand.timesteps[-1]
        o = hand.o(z, t)
        xhat = posterior_mean(scheduler, o, t, z)
    alpha, sigma = noise_level(scheduler, t)
    noise = seeded(plan.seed)
    copies = [z] + [alpha * xhat + sigma * torch.randn(z.shape, generator=noise).double() for _ in range(2)]
    z_N = scheduler.step(o, t, z).prev_sample.requires_grad_()
    g = torch.autograd.grad(reward(hand.decode(z_N)), z_N)[0]
    w = solver_weights(scheduler, N).w[-1]
    expected = torch.autograd.grad(sum((w * g * hand.o(z_m, t)).sum() / 3 for z_m in copies), trained(hand.pipe))
    images = sampled(hand.pipe, plan, 3.0)
    assert torch.equal(images.detach(), hand.decode(z_N).detach())
    for got, e in zip(gradients(hand.pipe, images), expected, strict=True):
        # w comes from a probe in another order of float32 schedule values
        assert (got - e).abs().max() <= 1e-5 * e.abs().max()


def test_draft_lv_needs_latents_as_they_are() -> None:
    class Shifting(diffusers.EulerDiscreteScheduler):
        def scale_model_input(self, sample: torch.Tensor, timestep: Any) -> torch.Tensor:
            return super().scale_model_input(sample, timestep) + torch.rand(())

    pipe = stable_diffusion(Shifting.from_config(ddim().config))
    with pytest.raises(ValueError, match="use estimator draft"):
        sampled(pipe, make_plan("draft-lv", N))


class Flow:
    """Stable Diffusion 3's trajectory without guidance, kept for surrogates to be built on."""

    def __init__(self) -> None:
        self.pipe = double(stable_diffusion_3())
        with torch.no_grad():
            c, _, pooled, _ = self.pipe.encode_prompt(PROMPTS, PROMPTS, PROMPTS, do_classifier_free_guidance=False)
        self.condition = {"encoder_hidden_states": c, "pooled_projections": pooled, "return_dict": False}
        self.pipe.scheduler.set_timesteps(N)
        self.sigmas, self.timesteps = self.pipe.scheduler.sigmas.double(), self.pipe.scheduler.timesteps
        z = torch.randn(2, 4, 8, 8, generator=seeded(3), dtype=torch.float64)
        self.z = [z]
        with torch.no_grad():
            for i, t in enumerate(self.timesteps):
                z = self.pipe.scheduler.step(self.v(z, i), t, z).prev_sample
                self.z.append(z)

    def v(self, z: torch.Tensor, i: int) -> torch.Tensor:
        return self.pipe.transformer(hidden_states=z, timestep=self.timesteps[i].expand(2), **self.condition)[0]

    def pinned(self, surrogate: torch.Tensor, i: int) -> torch.Tensor:
        """The true latents before step i, with the surrogate's gradient."""
        return surrogate + (self.z[i] - surrogate).detach()

    def gradients(self, z_N: torch.Tensor) -> list[torch.Tensor]:
        vae = self.pipe.vae
        z_N = z_N / vae.config.scaling_factor + vae.config.shift_factor
        return gradients(self.pipe, (vae.decode(z_N).sample / 2 + 0.5).clamp(0, 1))


def coupled(z: torch.Tensor, alpha: float) -> torch.Tensor:
    return z.detach() + alpha * (z - z.detach())


def close(got: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for g, e in zip(got, expected, strict=True):
        # 1e-5: the flow scheduler steps in float32
        assert (g - e).abs().max() <= 1e-5 * e.abs().max()


def test_leapalign_is_two_leaps() -> None:
    flow = Flow()
    plan = make_plan("leapalign", N, weights=solver_weights(flow.pipe.scheduler, N), alpha=0.3, generator=seeded(1))
    k, j = plan.steps
    sigma = flow.sigmas
    z_j = flow.pinned(flow.z[k] + (sigma[j] - sigma[k]) * flow.v(flow.z[k], k), j)
    z_N = flow.pinned(z_j - sigma[j] * flow.v(coupled(z_j, 0.3), j), N)
    close(gradients(flow.pipe, sampled(flow.pipe, plan)), flow.gradients(z_N))


@pytest.mark.parametrize("name", ["flowbp-sparse", "flowbp-bridge", "flowbp-lagrange"])
def test_flowbp_surrogates(name: str) -> None:
    """Surrogate trajectories as in the paper: cached velocities, those of kept steps computed again."""
    flow = Flow()
    weights = solver_weights(flow.pipe.scheduler, N)
    plan = make_plan(name, N, weights=weights, generator=seeded(2))
    delta = flow.sigmas[1:] - flow.sigmas[:-1]
    j = next((i for i, s in plan.steps.items() if s.coupling), N)

    def contribution(i: int, z_i: torch.Tensor) -> torch.Tensor:
        v = flow.v(z_i, i)
        return delta[i] * (v.detach() + plan.steps[i].scale * (v - v.detach()))

    before = sum(contribution(i, flow.z[i]) for i in plan.steps if i < j)
    z_j = flow.pinned(before, j)
    z_N = z_j
    for i in plan.steps:
        if i >= j:
            z_N = z_N + contribution(i, coupled(z_j, plan.steps[i].coupling) if i == j else flow.z[i])
    close(gradients(flow.pipe, sampled(flow.pipe, plan)), flow.gradients(flow.pinned(z_N, N)))


def test_leap_scales_add_up_to_what_they_stand_for() -> None:
    for weights in (weights_of_flow(), solver_weights(ddim(), 25)):
        for seed in range(20):
            plan = make_plan("leapalign", 25, weights=weights, generator=seeded(seed))
            k, _ = plan.steps
            total = sum(s.scale * weights.w[i] for i, s in plan.steps.items())
            torch.testing.assert_close(total, weights.w[k:].sum(), rtol=1e-12, atol=0)


def test_sparse_rescaling() -> None:
    weights = weights_of_flow()
    for r, power in ((0.0, 0), (1.0, 1)):
        plan = make_plan("flowbp-sparse", 25, weights=weights, K=4, rescale=r, generator=seeded(0))
        kept = weights.w[list(plan.steps)].abs().sum()
        expected = float(weights.w.abs().sum() / kept) ** power
        assert [s.scale for s in plan.steps.values()] == pytest.approx([expected] * 4, rel=1e-12)


def test_quadrature_integrates_polynomials() -> None:
    """Through `order` supports, polynomials of lower degree in tau come out exactly; tau is sigma up to a shift."""
    weights = weights_of_flow(shift=3.0)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(25)
    sigma = scheduler.sigmas.double()
    for start, end in ((2, 20), (20, 25), (10, 12), (5, 6)):
        support = support_steps(start, end, 3)
        assert support[0] == start
        q = quadrature(weights.w, support, start, end)
        for degree in range(len(support)):
            # 1e-5: the probe adds float32 steps
            exact = (sigma[end] ** (degree + 1) - sigma[start] ** (degree + 1)) / (degree + 1)
            got = sum(q_i * sigma[i] ** degree for q_i, i in zip(q, support, strict=True))
            assert float(got) == pytest.approx(float(exact), abs=1e-5)


def test_draws() -> None:
    weights, n, generator = weights_of_flow(), 25, seeded(0)
    plans = {
        name: [make_plan(name, n, weights=weights, generator=generator) for _ in range(400)]
        for name in available()
        if name not in ("full", "sdo")
    }
    assert {len(p.steps) for p in plans["alignprop"]} == set(range(1, n + 1))
    assert {p.reward_at for p in plans["refl"]} == set(range(19, 25))
    assert {p.reward_at for p in plans["drtune"]} == set(range(15, 25))
    for plan in plans["drtune"]:
        a, b, c = plan.steps
        assert b - a == c - b == (plan.reward_at + 1) // 3
    counts = Counter(i for plan in plans["flowbp-sparse"] for i in plan.steps)
    assert sum(counts[i] for i in range(5)) < sum(counts[i] for i in range(20, 25)) / 3, "late-biased"
    for plan in plans["flowbp-bridge"]:
        (j,) = (i for i, s in plan.steps.items() if s.coupling)
        assert len(plan.steps) == 5
        assert min(plan.steps) < j
    assert {next(i for i, s in p.steps.items() if s.coupling) for p in plans["flowbp-bridge"]} == set(range(1, n))
    for plan in plans["flowbp-lagrange"]:
        (j,) = (i for i, s in plan.steps.items() if s.coupling)
        assert j >= 15
        assert len(plan.steps) <= 4
    assert len({p.seed for p in plans["draft-lv"]}) > 390
    assert {tuple(s.coupling for s in p.steps.values()) for p in plans["leapalign"]} == {(0.0, 0.3)}


def test_the_mean_of_lagranges_draw() -> None:
    """The share after j is Beta(2.5, 8), so E[j] is an integral over its density: at 25 steps 18.4."""
    n, generator = 25, seeded(0)
    plans = [make_plan("flowbp-lagrange", n, weights=weights_of_flow(), generator=generator) for _ in range(2000)]
    ends = [(min(p.steps), next(i for i, s in p.steps.items() if s.coupling)) for p in plans]
    share = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    density = share**1.5 * (1 - share) ** 7
    after = float((density * (n * share).round().clamp(1, 9)).sum() / density.sum())
    assert statistics.mean(j for _, j in ends) == pytest.approx(n - 1 - after, abs=0.2)
    # n 2/10.5 steps before k + 1, and what the bound on `after`, whose share has mean 2.5/10.5, moves both ends by.
    assert statistics.mean(k for k, _ in ends) == pytest.approx(n * 4.5 / 10.5 - 1 - after, abs=0.2)
    assert (min(j for _, j in ends), max(j for _, j in ends), min(k for k, _ in ends)) == (15, 23, 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("leapalign", {"alpha": 1.5}, r"alpha: got 1.5; legal: a number in 0 .. 1"),
        ("flowbp-sparse", {"K": 99}, "K: got 99"),
        ("flowbp-bridge", {"K": 1}, "2 .. 25"),
        ("flowbp-bridge", {"bias": -1}, "bias: got -1"),
        ("flowbp-lagrange", {"active": 4}, r"1 .. 3 \(order\)"),
        ("flowbp-lagrange", {"order": 0}, "order: got 0"),
        ("draft-lv", {"n": 0}, "n: got 0"),
        ("alignprop", {"K_min": 5, "K_max": 4}, "K_min: got 5"),
        ("refl", {"late": 26}, "late: got 26"),
        ("drtune", {"early_stop": -0.1}, "early_stop: got -0.1"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], message: str) -> None:
    for refuse in (
        lambda: make_plan(name, 25, weights=weights_of_flow(), **options),
        lambda: check_plan(name, 25, options),
    ):
        with pytest.raises(PlanError, match=message):
            refuse()


@pytest.mark.parametrize("name", ["leapalign", "flowbp-sparse", "flowbp-bridge", "flowbp-lagrange"])
def test_weights_are_asked_for(name: str) -> None:
    check_plan(name, 25, {})
    with pytest.raises(PlanError, match=r"weights: got None.*solver_weights"):
        make_plan(name, 25)
    with pytest.raises(PlanError, match="weights of 24 steps"):
        make_plan(name, 25, weights=weights_of_flow(24))


def test_leaps_need_weights_of_one_sign() -> None:
    weights = solver_weights(diffusers.PNDMScheduler.from_config(ddim().config), 10)
    for name in ("leapalign", "flowbp-lagrange"):
        with pytest.raises(PlanError, match="same direction"):
            make_plan(name, weights.num_steps, weights=weights)


def test_every_estimator_at_every_small_number_of_steps() -> None:
    fewest = {"leapalign": 2, "flowbp-sparse": 4, "flowbp-bridge": 5, "flowbp-lagrange": 3, "drtune": 3}
    for name in available():
        for n in range(1, 9):
            weights = SolverWeights(a=1.0, w=torch.ones(n, dtype=torch.float64))
            if n < fewest.get(name, 1):
                with pytest.raises(PlanError):
                    check_plan(name, n, {})
                continue
            for seed in range(20):
                make_plan(name, n, weights=weights, generator=seeded(seed))

"""What has to be equal between estimators, for any model (`assert_same` says how equal)."""

from typing import Any

import pytest
import torch

from sdo_ray.backprop import (
    BackpropPlan,
    GradientRecord,
    StepGradient,
    differentiable_sample,
    make_plan,
    solver_weights,
)

from .tiny import (
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

N = 4
CALL: dict[str, Any] = {"prompt": ["a cat", "dogs"], "guidance_scale": 3.0, "num_inference_steps": N}


def sampled(pipe: Any, plan: BackpropPlan, **more: Any) -> torch.Tensor:
    return differentiable_sample(pipe, plan, generator=seeded(3), **(CALL | more))


def single(k: int, scale: float = 1.0) -> BackpropPlan:
    return BackpropPlan("single", N, {k: StepGradient(scale, 0.0)})


@pytest.fixture(params=[stable_diffusion, stable_diffusion_3])
def pipe(request: pytest.FixtureRequest) -> Any:
    return double(request.param())


def test_singles_add_up_to_all_steps_uncoupled(pipe: Any) -> None:
    singles = [gradients(pipe, sampled(pipe, single(k))) for k in range(N)]
    every = BackpropPlan("all", N, {i: StepGradient(1.0, 0.0) for i in range(N)})
    assert_same([sum(g) for g in zip(*singles, strict=True)], gradients(pipe, sampled(pipe, every)))
    for g in singles:
        assert all(g_p.abs().max() > 0 for g_p in g), "every step teaches every adapter parameter"


def test_scale_scales(pipe: Any) -> None:
    one = gradients(pipe, sampled(pipe, single(2)))
    assert_same(gradients(pipe, sampled(pipe, single(2, scale=2.5))), [2.5 * g for g in one])


def test_draft_of_all_steps_is_full_and_of_one_is_sdo_at_the_last(pipe: Any) -> None:
    full = gradients(pipe, sampled(pipe, make_plan("full", N)))
    assert_same(gradients(pipe, sampled(pipe, make_plan("draft", N, K=N))), full)
    last = gradients(pipe, sampled(pipe, make_plan("sdo", N, draw="fixed", at=[N - 1])))
    assert_same(gradients(pipe, sampled(pipe, make_plan("draft", N, K=1))), last)


def by_hand(pipe: Any, couple: Any) -> torch.Tensor:
    """The sampling loop of Stable Diffusion, written out; `couple(i, z)` is what the denoiser sees of z."""
    with torch.no_grad():
        c, c_0 = pipe.encode_prompt(CALL["prompt"], "cpu", 1, True)
        z = torch.randn(2, 4, 8, 8, generator=seeded(3), dtype=torch.float64)
        pipe.scheduler.set_timesteps(N)
    c_all = torch.cat([c_0, c])
    for i, t in enumerate(pipe.scheduler.timesteps):
        o_0, o_c = pipe.unet(torch.cat([couple(i, z)] * 2), t, c_all).sample.chunk(2)
        z = pipe.scheduler.step(o_0 + 3.0 * (o_c - o_0), t, z).prev_sample
    return (pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


COUPLINGS = {"full": [1.0] * N, "no coupling": [0.0] * N, "mixed": [0.0, 0.5, 0.0, 0.25]}


@pytest.mark.parametrize("alpha", COUPLINGS.values(), ids=COUPLINGS.keys())
def test_a_loop_written_by_hand(alpha: list[float]) -> None:
    pipe = double(stable_diffusion())
    plan = BackpropPlan("own", N, {i: StepGradient(1.0, alpha_i) for i, alpha_i in enumerate(alpha)})
    expected = gradients(pipe, by_hand(pipe, lambda i, z: z.detach() + alpha[i] * (z - z.detach())))
    assert_same(gradients(pipe, sampled(pipe, plan)), expected)


def test_checkpointing_changes_nothing(pipe: Any) -> None:
    expected = gradients(pipe, sampled(pipe, make_plan("full", N)))
    denoiser_of(pipe).enable_gradient_checkpointing()
    assert_same(gradients(pipe, sampled(pipe, make_plan("full", N))), expected)


def test_conditions_learn_from_every_kept_step() -> None:
    pipe = double(stable_diffusion())
    with torch.no_grad():
        c, c_0 = pipe.encode_prompt(CALL["prompt"], "cpu", 1, True)

    def d_c(plan: BackpropPlan) -> torch.Tensor:
        c_leaf = c.clone().requires_grad_()
        images = sampled(pipe, plan, prompt=None, prompt_embeds=c_leaf, negative_prompt_embeds=c_0)
        return torch.autograd.grad(images.square().sum(), c_leaf)[0]

    every = BackpropPlan("all", N, {i: StepGradient(1.0, 0.0) for i in range(N)})
    assert_same([torch.stack([d_c(single(k)) for k in range(N)]).sum(dim=0)], [d_c(every)])


def test_unbiased_single_steps_have_the_sum_as_their_mean() -> None:
    pipe = double(stable_diffusion())
    every = BackpropPlan("all", N, {i: StepGradient(1.0, 0.0) for i in range(N)})
    plans: dict[int, BackpropPlan] = {}
    draws = seeded()
    while len(plans) < N:
        plan = make_plan("sdo", N, unbiased=True, generator=draws)
        plans[next(iter(plan.steps))] = plan
    means = [sum(g) / N for g in zip(*(gradients(pipe, sampled(pipe, p)) for p in plans.values()), strict=True)]
    assert_same(means, gradients(pipe, sampled(pipe, every)))


def test_recorded_norms_are_those_of_the_gradient_at_the_output() -> None:
    pipe = double(stable_diffusion())
    record = GradientRecord()
    plan = BackpropPlan("own", N, {1: StepGradient(2.0, 0.0), 3: StepGradient(1.0, 0.0)})
    images = differentiable_sample(pipe, plan, output_hook=record.watch, generator=seeded(3), **CALL)
    assert record.norms == {}, "filled by the backward pass"
    gradients(pipe, images)

    # The same gradient by hand: dR/dz_N at the latents, times the solver's weight and the plan's scale.
    z_N = sampled(pipe, BackpropPlan("empty", N), output_type="latent").requires_grad_()
    image = (pipe.vae.decode(z_N / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    g = torch.autograd.grad(reward(image), z_N)[0]
    w = solver_weights(pipe.scheduler, N).w
    assert record.norms.keys() == {1, 3}
    for k, s_k in ((1, 2.0), (3, 1.0)):
        assert record.norms[k] == pytest.approx((s_k * w[k] * g).norm().item(), rel=1e-6)


def test_backward_accumulates_like_grad() -> None:
    pipe = double(stable_diffusion())
    expected = gradients(pipe, sampled(pipe, make_plan("draft", N, K=2)))
    reward(sampled(pipe, make_plan("draft", N, K=2))).backward()
    assert_same([p.grad for p in trained(pipe) if p.grad is not None], expected)

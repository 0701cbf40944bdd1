"""The hook at kept steps' outputs: what it is called with, and that cotangents put in there teach what they say."""

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
from tests.backprop.tiny import assert_same, double, gradients, reward, seeded, stable_diffusion, trained

N, GUIDANCE = 4, 3.0
CALL: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": N, "guidance_scale": GUIDANCE}


def outputs(pipe: Any, plan: BackpropPlan) -> tuple[torch.Tensor, list[tuple[int, float, torch.Tensor]]]:
    seen: list[tuple[int, float, torch.Tensor]] = []
    images = differentiable_sample(pipe, plan, output_hook=lambda *each: seen.append(each), generator=seeded(3), **CALL)
    return images, seen


def by_hand(pipe: Any, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """z_k and o_k of the sampler written out, o_k with its graph, z_k without."""
    with torch.no_grad():
        c, c_0 = pipe.encode_prompt(CALL["prompt"], "cpu", 1, True)
        both = torch.cat([c_0, c])
        z = pipe.prepare_latents(1, 4, 16, 16, torch.float64, "cpu", seeded(3))
    pipe.scheduler.set_timesteps(N)
    for i, t in enumerate(pipe.scheduler.timesteps):
        with torch.set_grad_enabled(i == k):
            without, conditional = pipe.unet(torch.cat([z] * 2), t, encoder_hidden_states=both).sample.chunk(2)
            o = without + GUIDANCE * (conditional - without)
        if i == k:
            return z, o
        z = pipe.scheduler.step(o, t, z).prev_sample
    raise AssertionError(k)


def test_each_kept_step_gives_its_output_in_order() -> None:
    pipe = double(stable_diffusion())
    _, seen = outputs(pipe, BackpropPlan("own", N, {1: StepGradient(2.0, 0.0), 3: StepGradient(0.5, 0.0)}))
    assert [(k, scale) for k, scale, _ in seen] == [(1, 2.0), (3, 0.5)]
    for k, _, o in seen:
        torch.testing.assert_close(o, by_hand(pipe, k)[1], rtol=1e-9, atol=1e-9)


def test_a_plan_that_keeps_nothing_has_no_outputs() -> None:
    assert outputs(double(stable_diffusion()), BackpropPlan("empty", N))[1] == []


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_cotangent_at_the_output_teaches_what_it_says(scale: float) -> None:
    """(do_k/dtheta)^T u, on top of what the images' gradient teaches and in the same backward pass."""
    pipe = double(stable_diffusion())
    plan = BackpropPlan("own", N, {2: StepGradient(scale, 0.0)})
    images, [(_, _, o)] = outputs(pipe, plan)
    u = torch.randn(o.shape, generator=seeded(5), dtype=o.dtype)
    both = torch.autograd.grad([reward(images), o], trained(pipe), [torch.ones((), dtype=o.dtype), u / scale])
    alone = gradients(pipe, outputs(pipe, plan)[0])
    expected = torch.autograd.grad(by_hand(pipe, 2)[1], trained(pipe), u)
    assert_same(list(both), [a + b for a, b in zip(alone, expected, strict=True)])


def test_the_output_with_re_noised_copies_is_the_one_that_teaches() -> None:
    pipe = double(stable_diffusion())
    record = GradientRecord()
    plan = make_plan("draft-lv", N, n=2, generator=seeded(1))
    images = differentiable_sample(pipe, plan, output_hook=record.watch, generator=seeded(3), **CALL)
    gradients(pipe, images)
    z_N = differentiable_sample(
        pipe, BackpropPlan("empty", N), generator=seeded(3), **CALL, output_type="latent"
    ).requires_grad_()
    image = (pipe.vae.decode(z_N / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    g = torch.autograd.grad(reward(image), z_N)[0]
    assert record.norms == pytest.approx({N - 1: (solver_weights(pipe.scheduler, N).w[-1] * g).norm().item()})
    # A cotangent reaches the parameters by way of the copies too.
    _, [(_, _, o)] = outputs(pipe, plan)
    u = torch.randn(o.shape, generator=seeded(5), dtype=o.dtype)
    taught = torch.autograd.grad(o, trained(pipe), u)
    plain = torch.autograd.grad(outputs(pipe, make_plan("draft", N))[1][0][2], trained(pipe), u)
    assert all(t.abs().max() > 0 for t in taught)
    assert not torch.allclose(taught[0], plain[0])

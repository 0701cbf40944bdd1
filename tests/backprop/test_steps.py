"""A runner has every step without a graph and no kept one; a kept step is exact with any runner."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from sdo_ray.backprop import (
    BackpropPlan,
    ExactRunner,
    KeptCall,
    StepRunner,
    differentiable_sample,
    make_plan,
    surrogate,
)
from sdo_ray.backprop.tensors import map_floating

from .tiny import assert_same, double, gradients, reward, seeded, stable_diffusion, trained

N = 5
PLANS = {
    "nothing kept": BackpropPlan("empty", N),
    "sdo": make_plan("sdo", N, draw="fixed", at=[2]),
    "two kept": make_plan("sdo", N, K=2, draw="fixed", at=[1, 3]),
    "coupled": make_plan("draft", N, K=2),
    "checkpointed": make_plan("draft", N, K=2, checkpoint=True),
    "renoised": make_plan("draft-lv", N, generator=seeded()),
    "posterior mean": make_plan("refl", N, generator=seeded()),
}


class Halving:
    """Returns half of what the denoiser gives."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.steps: list[int] = []
        self.is_exact = False

    def begin(self, num_steps: int) -> None:
        self.begun.append(num_steps)

    def __call__(
        self, step: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        assert name == "unet"
        assert not torch.is_grad_enabled()
        self.steps.append(step)
        return tuple(map_floating(lambda o: o / 2, forward(*args, **kwargs)))

    @contextmanager
    def exact(self) -> Iterator[None]:
        self.is_exact = True
        try:
            yield
        finally:
            self.is_exact = False


def call(**more: Any) -> dict[str, Any]:
    return {"prompt": "a cat", "guidance_scale": 3.0, "num_inference_steps": N, "generator": seeded(1)} | more


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_a_runner_has_the_steps_that_are_not_kept(plan: BackpropPlan) -> None:
    pipe, runner = stable_diffusion(), Halving()
    exact: list[bool] = []
    pipe.unet.conv_in.register_forward_hook(lambda *_: exact.append(runner.is_exact))
    images = differentiable_sample(pipe, plan, runner=runner, **call())
    last = N - 1 if plan.reward_at is None else plan.reward_at
    assert runner.begun == [N]
    assert runner.steps == [i for i in range(last + 1) if i not in plan.steps]
    kept = [is_exact for is_exact in exact if is_exact]
    assert len(exact) - len(kept) == len(runner.steps)
    assert len(kept) == (len(plan.steps) if plan.renoised_at is None else plan.copies + 2)
    if plan.checkpoint:
        exact.clear()
        reward(images).backward()
        assert exact == [True] * len(plan.steps)


@pytest.mark.parametrize("name", ["sdo", "two kept"])
def test_the_gradient_at_kept_steps_is_that_of_the_denoiser_itself(name: str) -> None:
    pipe, plan = double(stable_diffusion()), PLANS[name]
    images = differentiable_sample(pipe, plan, runner=Halving(), **call())
    calls: list[KeptCall] = []
    again = differentiable_sample(pipe, plan, runner=Halving(), elsewhere=calls, **call())
    assert torch.equal(images, again)
    reward(again).backward()
    assert len(calls) == len(plan.steps)
    expected = [torch.zeros_like(p) for p in trained(pipe)]
    for kept in calls:
        direct = surrogate(pipe.unet, kept.args, kept.kwargs, kept.gradients())
        for total, g in zip(expected, torch.autograd.grad(direct, trained(pipe)), strict=True):
            total += g
    assert_same(gradients(pipe, images), expected)
    assert not torch.equal(images, differentiable_sample(pipe, plan, **call()))


def test_the_default_runner_makes_the_calls_themselves() -> None:
    runner: StepRunner = ExactRunner()
    pipe = stable_diffusion()
    plain = pipe(**call(), output_type="pt").images
    images = differentiable_sample(pipe, PLANS["sdo"], runner=runner, **call())
    assert torch.equal(images.detach(), plain)
    default = differentiable_sample(pipe, PLANS["sdo"], **call())
    assert all(map(torch.equal, gradients(pipe, images), gradients(pipe, default)))

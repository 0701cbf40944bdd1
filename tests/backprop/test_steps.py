"""A runner has every step without a graph and no kept one; a kept step is exact with any runner."""

from collections.abc import Callable, Iterator, Mapping
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
    run_by,
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
        self.ended = 0
        self.steps: list[int] = []
        self.kept: list[int] = []
        self.is_exact = False

    @contextmanager
    def sampling(self, num_steps: int, denoisers: Mapping[str, torch.nn.Module]) -> Iterator[None]:
        assert list(denoisers) == ["unet"]
        self.begun.append(num_steps)
        yield
        self.ended += 1

    def __call__(
        self, step: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        assert name == "unet"
        assert not torch.is_grad_enabled()
        self.steps.append(step)
        return tuple(map_floating(lambda o: o / 2, forward(*args, **kwargs)))

    def exact(
        self, step: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.kept.append(step)
        self.is_exact = True
        try:
            return forward(*args, **kwargs)
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
    assert runner.ended == 1
    assert runner.steps == [i for i in range(last + 1) if i not in plan.steps]
    assert {*runner.kept} == {*plan.steps} | {i for i in [plan.renoised_at] if i is not None}
    kept = [is_exact for is_exact in exact if is_exact]
    assert len(exact) - len(kept) == len(runner.steps)
    assert len(kept) == (len(plan.steps) if plan.renoised_at is None else plan.copies + 2)
    if plan.checkpoint:
        exact.clear()
        reward(images).backward()
        assert exact == [True] * len(plan.steps)
        assert sorted(runner.kept) == sorted([*plan.steps] * 2)


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


def test_a_plain_call_has_its_steps_run_by_a_runner() -> None:
    pipe, runner = stable_diffusion(), Halving()
    with run_by(runner, pipe, N):
        images = pipe(**call(), output_type="pt").images
    assert (runner.begun, runner.ended, runner.steps) == ([N], 1, [*range(N)])
    assert torch.equal(images, differentiable_sample(pipe, PLANS["nothing kept"], runner=Halving(), **call()))
    plain = pipe(**call(), output_type="pt").images
    with run_by(ExactRunner(), pipe, N):
        assert torch.equal(pipe(**call(), output_type="pt").images, plain)
    assert not torch.equal(images, plain)

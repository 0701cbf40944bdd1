"""What others have put around a denoiser's forward takes part in a kept step: hooks, and compiled code."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sdo_ray.backprop import BackpropPlan, KeptCall, differentiable_sample, make_plan, surrogate

from .tiny import assert_same, double, gradients, reward, seeded, stable_diffusion, stable_diffusion_3, trained

N = 4
SDO = make_plan("sdo", N, draw="fixed", at=[2])
COUPLED = make_plan("draft", N, K=2)


def call(**more: Any) -> dict[str, Any]:
    return {"prompt": "a cat", "guidance_scale": 3.0, "num_inference_steps": N, "generator": seeded(1)} | more


def hooked(pipe: Any) -> Any:
    """Hooks before and after the denoiser, the second with a parameter that learns, and after one of its layers."""
    pipe.unet.gain = torch.nn.Parameter(torch.tensor(0.9, dtype=pipe.unet.dtype))
    pipe.unet.register_forward_pre_hook(lambda _, args: (0.8 * args[0], *args[1:]))
    pipe.unet.register_forward_hook(lambda unet, _, output: (unet.gain * output[0],))
    pipe.unet.conv_in.register_forward_hook(lambda _1, _2, output: 1.1 * output)
    return pipe


def written_out(pipe: Any) -> Any:
    """The same by other classes, without hooks."""

    class Unet(type(pipe.unet)):  # type: ignore[misc]
        def forward(self, sample: Any, *args: Any, **kwargs: Any) -> Any:
            return (self.gain * super().forward(0.8 * sample, *args, **kwargs)[0],)

    class Convolution(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 1.1 * super().forward(x)

    pipe.unet.gain = torch.nn.Parameter(torch.tensor(0.9, dtype=pipe.unet.dtype))
    pipe.unet.__class__, pipe.unet.conv_in.__class__ = Unet, Convolution
    return pipe


@pytest.mark.parametrize("plan", [SDO, COUPLED, BackpropPlan("empty", N)], ids=["sdo", "coupled", "empty"])
def test_forward_hooks_take_part(plan: BackpropPlan) -> None:
    pipe, other = hooked(double(stable_diffusion())), written_out(double(stable_diffusion()))
    plain = pipe(**call(), output_type="pt").images
    images = differentiable_sample(pipe, plan, **call())
    expected = differentiable_sample(other, plan, **call())
    assert torch.equal(images.detach(), plain)
    assert torch.equal(images, expected)
    assert images.requires_grad == bool(plan.steps)
    if plan.steps:
        assert len(trained(pipe)) == len(trained(stable_diffusion())) + 1
        assert_same(gradients(pipe, images), gradients(other, expected))


def test_a_kept_call_is_what_the_hooks_were_given() -> None:
    pipe, calls = hooked(double(stable_diffusion())), list[KeptCall]()
    reward(differentiable_sample(pipe, SDO, elsewhere=calls, **call())).backward()
    (kept,) = calls
    direct = surrogate(pipe.unet, kept.args, kept.kwargs, kept.gradients())
    expected = gradients(pipe, differentiable_sample(pipe, SDO, **call()))
    assert_same(list(torch.autograd.grad(direct, trained(pipe))), expected)


def in_place(pipe: Any, counting: Callable[..., Any]) -> None:
    pipe.transformer.compile(backend=counting, fullgraph=True)


def wrapped(pipe: Any, counting: Callable[..., Any]) -> None:
    pipe.transformer = torch.compile(pipe.transformer, backend=counting)


def by_block(pipe: Any, counting: Callable[..., Any]) -> None:
    for block in pipe.transformer.transformer_blocks:
        block.compile(backend=counting, fullgraph=True)


@pytest.mark.parametrize("compile_it", [in_place, wrapped, by_block])
def test_a_compiled_denoiser(compile_it: Callable[..., None]) -> None:
    graphs = 0

    def counting(module: Any, _inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return module.forward

    pipe = stable_diffusion_3()
    expected = differentiable_sample(pipe, SDO, **call())
    expected_gradients = gradients(pipe, expected)
    torch._dynamo.reset()
    compile_it(pipe, counting)
    images = differentiable_sample(pipe, SDO, **call())
    assert torch.equal(images, expected)
    assert all(map(torch.equal, gradients(pipe, images), expected_gradients))
    compiled = graphs
    assert compiled >= 2  # With a graph and without: what was compiled was run.
    differentiable_sample(pipe, make_plan("sdo", N, draw="fixed", at=[1]), **call())
    assert graphs == compiled
    pipe(**call())
    assert graphs == compiled

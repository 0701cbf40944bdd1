"""What every pipeline has to pass.

1. With any step kept, the images are those of the plain call, to the bit.
2. With step k kept, the denoiser runs with a graph in step k's calls only, and a gradient reaches its adapter.
3. The gradients of the single steps add up to that of all steps, uncoupled. Tolerance: float32, 1e-3 of the largest
   entry; the identity itself is held to 1e-9 in float64 on two pipelines in test_identities.py.
4. With the backward pass of the kept denoiser calls left to be run elsewhere, the calls travel as bytes, and their
   gradients add up to the same; or this is refused, because the pipeline changes its denoiser for its call.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model

from sdo_ray.backprop import (
    BackpropPlan,
    GradientRecord,
    KeptCall,
    StepGradient,
    TraceError,
    differentiable_sample,
    surrogate,
    trace,
)
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.rollout.calls import ShippedCall, dump_calls, load_calls

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Passed:
    """What was seen of a pipeline that passed: its steps, the shape of what it returns, whether kept calls travel."""

    steps: int
    shape: tuple[int, ...]
    travels: bool


def adapt(pipe: Any) -> list[torch.nn.Parameter]:
    """Freeze everything and give the denoisers a LoRA with both factors away from zero."""
    modules = [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
    for module in modules:
        module.requires_grad_(False).eval()
    torch.manual_seed(1)
    for module in denoisers_of(pipe).values():
        # Layers that start at zero would keep the gradient from what is before them.
        for p in (p for p in module.parameters() if not p.any()):
            torch.nn.init.normal_(p, std=0.1)
        linear = [n for n, m in module.named_modules() if isinstance(m, torch.nn.Linear)]
        attention = [n for n in linear if "attn" in n or "attention" in n] or linear
        inject_adapter_in_model(LoraConfig(r=1, target_modules=attention, init_lora_weights=False), module)
    pipe.set_progress_bar_config(disable=True)
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def check(pipe: Any, call: Callable[[], dict[str, Any]]) -> Passed:
    """Run the checks.

    Args:
        pipe: a tiny pipeline.
        call: makes the arguments of a call, with generators in the same state each time.

    Raises:
        AssertionError: a check failed.
        Exception: whatever the pipeline raises.
    """
    parameters = adapt(pipe)
    torch.manual_seed(2)
    plain = _tensor(pipe(**call())[0])
    n = steps_of(pipe, call)
    graphs = _graph_counter(pipe)

    record = GradientRecord()

    def sampled(steps: dict[int, StepGradient], elsewhere: list[KeptCall] | None = None) -> torch.Tensor:
        graphs.clear()
        record.norms.clear()
        torch.manual_seed(2)
        plan = BackpropPlan("own", n, steps)
        images = differentiable_sample(pipe, plan, output_hook=record.watch, elsewhere=elsewhere, **call())
        assert torch.equal(images.detach().nan_to_num(7), plain.nan_to_num(7)), "images differ from the plain call's"
        return images

    def gradient(images: torch.Tensor) -> list[torch.Tensor]:
        got = torch.autograd.grad(_reward(images), parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, got, strict=True)]

    def gradient_elsewhere(steps: dict[int, StepGradient]) -> list[torch.Tensor]:
        kept: list[KeptCall] = []
        _reward(sampled(steps, kept)).backward()
        assert not any(graphs), "a denoiser call with a graph, though its backward pass runs elsewhere"
        shipped = [ShippedCall.of(call, call.gradients()) for call in kept]
        assert _same(shipped, load_calls(dump_calls(shipped))), "the calls do not travel"
        total = sum(surrogate(denoisers_of(pipe)[c.denoiser], c.args, c.kwargs, c.gradients) for c in shipped)
        got = torch.autograd.grad(total, parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, got, strict=True)]

    total = [torch.zeros_like(p) for p in parameters]
    calls = 0
    for k in range(n):
        g = gradient(sampled({k: StepGradient()}))
        assert any(graphs), "no denoiser call with a graph"
        calls += sum(graphs)
        assert all(x.isfinite().all() for x in g), f"gradient of step {k} is not finite"
        # A sampler that ends at the model's own prediction gives earlier outputs no direct weight.
        learns = any(x.abs().max() > 0 for x in g)
        assert learns or not record.norms.get(k), f"no gradient reaches the adapter from step {k}"
        total = [a + b for a, b in zip(total, g, strict=True)]
    steps = {i: StepGradient() for i in range(n)}
    every = gradient(sampled(steps))
    assert calls == sum(graphs) == len(graphs), "denoiser calls with a graph outside the kept step"
    assert any(x.abs().max() > 0 for x in every), "no gradient reaches the adapter"
    _assert_close(total, every, "sum of single steps")
    try:
        _assert_close(gradient_elsewhere(steps), every, "gradient from elsewhere")
    except TraceError as error:
        if error.field != "elsewhere":
            raise
        return Passed(n, tuple(plain.shape), travels=False)
    return Passed(n, tuple(plain.shape), travels=True)


def _reward(images: torch.Tensor) -> torch.Tensor:
    return (torch.linspace(-1, 1, images.numel()).reshape(images.shape) * images).sum()


def _assert_close(got: list[torch.Tensor], expected: list[torch.Tensor], what: str) -> None:
    largest = max(x.abs().max() for x in expected)
    worst = max((a - b).abs().max() for a, b in zip(got, expected, strict=True))
    assert worst <= TOLERANCE * largest, f"{what} is off by {worst / largest:.1e} of the largest entry"


def _same(a: Any, b: Any) -> bool:
    """Whether two trees have the same entries, tensors to the bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    if isinstance(a, ShippedCall):
        return all(_same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _graph_counter(pipe: Any) -> list[bool]:
    graphs: list[bool] = []
    for module in denoisers_of(pipe).values():
        inner = module.forward

        def forward(*args: Any, inner: Any = inner, **kwargs: Any) -> Any:
            graphs.append(torch.is_grad_enabled())
            return inner(*args, **kwargs)

        module.forward = forward
    return graphs


def steps_of(pipe: Any, call: Callable[[], dict[str, Any]]) -> int:
    """The steps a call takes, from the refusal of a plan that has too many."""
    try:
        with torch.no_grad(), trace(pipe, BackpropPlan("too long", 999)):
            pipe(**call())
    except TraceError as error:
        if found := re.search(r"takes (\d+)", str(error.got)):
            return int(found[1])
        raise
    raise AssertionError("took 999 steps")


def _tensor(output: Any) -> torch.Tensor:
    if isinstance(output, list):
        return torch.stack([_tensor(x) for x in output])
    return torch.from_numpy(output) if isinstance(output, np.ndarray) else output

"""What every pipeline has to pass.

1. With any step kept, the pictures are those of the plain call, to the bit.
2. With step k kept, the denoiser runs with a graph in step k's calls only, and a gradient reaches its adapter.
3. The gradients of the single steps add up to that of all steps, uncoupled. Tolerance: float32, 1e-3 of the largest
   entry; the identity itself is held to 1e-9 in float64 on two pipelines in test_identities.py.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model

from sdo_ray.backprop import BackpropPlan, GradientRecord, StepGradient, TraceError, differentiable_sample, trace
from sdo_ray.backprop.denoisers import denoisers_of

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Passed:
    """What was seen of a pipeline that passed: its steps, and the shape of what it returns."""

    steps: int
    shape: tuple[int, ...]


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
    n = _steps(pipe, call)
    graphs = _graph_counter(pipe)

    record = GradientRecord()

    def sampled(steps: dict[int, StepGradient]) -> torch.Tensor:
        graphs.clear()
        record.norms.clear()
        torch.manual_seed(2)
        pictures = differentiable_sample(pipe, BackpropPlan("own", n, steps), record=record, **call())
        assert torch.equal(pictures.detach().nan_to_num(7), plain.nan_to_num(7)), (
            "pictures differ from the plain call's"
        )
        return pictures

    def gradient(pictures: torch.Tensor) -> list[torch.Tensor]:
        weights = torch.linspace(-1, 1, pictures.numel()).reshape(pictures.shape)
        got = torch.autograd.grad((weights * pictures).sum(), parameters, allow_unused=True)
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
    every = gradient(sampled({i: StepGradient() for i in range(n)}))
    assert calls == sum(graphs) == len(graphs), "denoiser calls with a graph outside the kept step"
    largest = max(x.abs().max() for x in every)
    assert largest > 0, "no gradient reaches the adapter"
    worst = max((a - b).abs().max() for a, b in zip(total, every, strict=True))
    assert worst <= TOLERANCE * largest, f"sum of single steps is off by {worst / largest:.1e} of the largest entry"
    return Passed(n, tuple(plain.shape))


def _graph_counter(pipe: Any) -> list[bool]:
    graphs: list[bool] = []
    for module in denoisers_of(pipe).values():
        inner = module.forward

        def forward(*args: Any, inner: Any = inner, **kwargs: Any) -> Any:
            graphs.append(torch.is_grad_enabled())
            return inner(*args, **kwargs)

        module.forward = forward
    return graphs


def _steps(pipe: Any, call: Callable[[], dict[str, Any]]) -> int:
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

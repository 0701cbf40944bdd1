"""The precision that models sample and learn in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from sdo_ray.backprop.patches import replaced_call, replaced_method

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@contextmanager
def autocast(pipeline: DiffusionPipeline) -> Iterator[None]:
    """The precision to sample in: a half-precision model multiplies what is trained, float32, in half precision too.

    A component that is frozen and float32 computes in float32: an autoencoder that was loaded so, or that its pipeline
    turns to float32 for the decoding because its activations overflow in float16 (SDXL's).
    """
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    if _half(parts) is None:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(mixed_precision(parts, pipeline.device.type))
        for part in parts:
            if not any(parameter.requires_grad for parameter in part.parameters()):
                stack.enter_context(replaced_call(part, functools.partial(_in_its_own, part)))
                if hasattr(part, "decode"):
                    stack.enter_context(replaced_method(part, "decode", functools.partial(_in_its_own, part)))
        yield


def mixed_precision(modules: Iterable[Any], device: str) -> AbstractContextManager[Any]:
    """Autocast to the half precision that any parameter of `modules` has, on a device type; nothing if none has."""
    half = _half(modules)
    return nullcontext() if half is None else torch.autocast(device, dtype=half)


def _half(modules: Iterable[Any]) -> torch.dtype | None:
    parameters = (p for module in modules if isinstance(module, torch.nn.Module) for p in module.parameters())
    return next((p.dtype for p in parameters if p.dtype in (torch.bfloat16, torch.float16)), None)


def _in_its_own(
    module: torch.nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    parameters = list(module.parameters())
    if parameters and all(parameter.dtype == torch.float32 for parameter in parameters):
        with torch.autocast(parameters[0].device.type, enabled=False):
            return call(*args, **kwargs)
    return call(*args, **kwargs)

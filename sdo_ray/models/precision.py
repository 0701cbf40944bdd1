"""The precision that models sample and learn in: each component in its own, without autocast.

Samplers hold working copies of what is trained, of the type of the weights around it; trainers hold float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.backprop.patches import replaced_call, replaced_method
from sdo_ray.backprop.tensors import map_floating

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def component_types(components: Mapping[str, object], dtype: str, types: Mapping[str, str]) -> dict[str, torch.dtype]:
    """The type of each network among a pipeline's components.

    Args:
        components: by name.
        dtype: name of the type of those that are not named.
        types: component -> name of its type. A decoder that overflows in float16 (diffusers' `force_upcast`) is float32
            where it is not named.
    """
    found = {}
    for name, part in components.items():
        if isinstance(part, torch.nn.Module):
            overflows = dtype == "float16" and getattr(getattr(part, "config", None), "force_upcast", False)
            found[name] = getattr(torch, types.get(name, "float32" if overflows else dtype))
    return found


def computing_type(module: torch.nn.Module) -> torch.dtype | None:
    """The type that a network computes in; None if it has no weights that are floats.

    Not that of its first weight, which may be of a layer that its class keeps in float32, as Wan's tables are.
    """
    from diffusers.models.modeling_utils import get_parameter_dtype

    found: torch.dtype | None = get_parameter_dtype(module)
    return found if found is not None and found.is_floating_point else None


@contextmanager
def own_precision(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Within the block a component of another type than what it is given computes in its own all the same.

    Pipelines themselves expect one type: their latents have the denoiser's, or the prompts', and go to the decoder so.
    """
    denoisers = denoisers_of(pipeline)
    with ExitStack() as stack:
        for name, part in pipeline.components.items():
            if not isinstance(part, torch.nn.Module):
                continue
            if name in denoisers:
                stack.enter_context(replaced_call(part, partial(_in_own_type, part, 3)))
            elif callable(getattr(part, "decode", None)):
                stack.enter_context(replaced_method(part, "decode", partial(_in_own_type, part, 1)))
        yield


def mixed_precision(modules: Iterable[Any], device: str) -> AbstractContextManager[Any]:
    """Autocast to the half precision that any parameter of `modules` has, on a device type; nothing if none has.

    For trainers, whose trained parameters are float32 among frozen ones of half precision.
    """
    parameters = (p for module in modules if isinstance(module, torch.nn.Module) for p in module.parameters())
    half = next((p.dtype for p in parameters if p.dtype in (torch.bfloat16, torch.float16)), None)
    return nullcontext() if half is None else torch.autocast(device, dtype=half)


def _in_own_type(
    module: torch.nn.Module, dims: int, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The call with tensors of at least so many dimensions cast; timesteps and positions lose digits that they need."""
    dtype = computing_type(module)

    def cast(x: torch.Tensor) -> torch.Tensor:
        return x if dtype is None or x.dim() < dims else x.to(dtype)

    args, kwargs = map_floating(cast, (args, kwargs))
    return call(*args, **kwargs)

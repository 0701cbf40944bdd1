"""The precision that models sample and learn in: each component in its own, without autocast.

Samplers hold working copies of what is trained, of the type of the weights around it. So do trainers with
`trainers.dtype: bfloat16`; others hold what is trained in float32, and autocast where the weights around it are not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
                for method in ("encode", "decode") if callable(getattr(part, "encode", None)) else ("decode",):
                    stack.enter_context(replaced_method(part, method, partial(_in_own_type, part, 1)))
        yield


@contextmanager
def mixed_precision(modules: Collection[torch.nn.Module], device: str) -> Iterator[None]:
    """Within the block trainers' modules compute: in their own type, whatever they are given, or by autocast.

    Autocast, on a device type, is for float32 parameters among others of half precision, and to the type of these.
    """
    types = {p.dtype for module in modules for p in module.parameters()}
    half = next((dtype for dtype in (torch.bfloat16, torch.float16) if dtype in types), None)
    with ExitStack() as stack:
        if half is not None and torch.float32 in types:
            stack.enter_context(torch.autocast(device, dtype=half))
        else:
            for module in modules:
                stack.enter_context(replaced_call(module, partial(_in_own_type, module, 3)))
        yield


def _in_own_type(
    module: torch.nn.Module, dims: int, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The call with tensors cast, to fewer digits those of at least so many dimensions.

    Timesteps and positions need all of theirs.
    """
    dtype = computing_type(module)

    def cast(x: torch.Tensor) -> torch.Tensor:
        if dtype is None or (x.dim() < dims and torch.promote_types(x.dtype, dtype) != dtype):
            return x
        return x.to(dtype)

    args, kwargs = map_floating(cast, (args, kwargs))
    return call(*args, **kwargs)

"""A call of a network in another type than the pipeline's, for which the difference does not show."""

from __future__ import annotations

from typing import Any

import torch

from sdo_ray.backprop.tensors import map_floating, with_type

PRECISE = ("timestep", "_ids", "rotary", "sigma")
"""Arguments that keep their type, by parts of their names: they count further than half precision can."""


def typed_call(
    module: torch.nn.Module, dtype: torch.dtype, own: torch.dtype, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What a network returns for arguments in its type.

    Args:
        module: the network.
        dtype: of its weights.
        own: what the output's floating-point tensors are to be.
        args: of the call; tensors of one dimension keep their type, as times may be among them.
        kwargs: likewise, and those whose names are in `PRECISE` do.
    """

    def cast(x: torch.Tensor) -> torch.Tensor:
        return x.to(dtype) if x.dim() > 1 else x

    named = {
        key: value if any(part in key for part in PRECISE) else map_floating(cast, value)
        for key, value in kwargs.items()
    }
    return with_type(module(*map_floating(cast, args), **named), own)


def take_any_type(module: torch.nn.Module) -> None:
    """Have linear layers cast what they are given: some networks hand them times, or what they make of those, in the
    type of the times, which `typed_call` keeps.

    Args:
        module: whose layers they are.
    """
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(_cast_input)


def _cast_input(layer: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = next(p.dtype for p in layer.parameters() if p.is_floating_point())
    cast: tuple[Any, ...] = map_floating(lambda x: x.to(dtype), args)
    return cast

"""Kept denoiser calls as bytes, for the trainers that run their backward pass."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch

from sdo_ray.backprop import KeptCall


@dataclass(frozen=True)
class ShippedCall:
    """What the backward pass of one kept denoiser call needs."""

    denoiser: str
    """The component, such as "unet"."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    gradients: list[torch.Tensor]
    """Gradient of the SUM of the mixed reward over the samples counted, at each of the call's outputs."""

    @classmethod
    def of(cls, call: KeptCall, gradients: list[torch.Tensor]) -> ShippedCall:
        """A call with the gradients at its outputs."""
        return cls(call.denoiser, call.args, call.kwargs, gradients)


def dump_calls(calls: Sequence[ShippedCall]) -> bytes:
    """Calls as safetensors bytes: the tensors, and in the metadata the trees they belong to as JSON.

    Raises:
        TypeError: an argument is no tensor, number, text, truth value, None, or list, tuple or mapping of these.
    """
    tensors: dict[str, torch.Tensor] = {}
    trees = [_flatten([call.denoiser, call.args, call.kwargs, call.gradients], tensors) for call in calls]
    return safetensors.torch.save(tensors, {"calls": json.dumps(trees)})


def load_calls(data: bytes) -> tuple[ShippedCall, ...]:
    """The inverse of `dump_calls`, on the CPU."""
    tensors = safetensors.torch.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return tuple(ShippedCall(*_rebuild(tree, tensors)) for tree in json.loads(header["__metadata__"]["calls"]))


def _flatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A tree as JSON: [kind, content], tensors by their number in `tensors`."""
    match value:
        case torch.Tensor():
            # Copies: safetensors refuses tensors that share memory, as expanded ones do.
            tensors[name := str(len(tensors))] = value.detach().cpu().contiguous().clone()
            return ["tensor", name]
        case None | bool() | int() | float() | str():
            return ["value", value]
        case list() | tuple():
            return [type(value).__name__, [_flatten(item, tensors) for item in value]]
        case dict():
            return ["dict", [[key, _flatten(item, tensors)] for key, item in value.items()]]
    raise TypeError(f"a denoiser was called with a {type(value).__name__}, which cannot travel to the trainers")


def _rebuild(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    kind, content = tree
    match kind:
        case "tensor":
            return tensors[content]
        case "list":
            return [_rebuild(item, tensors) for item in content]
        case "tuple":
            return tuple(_rebuild(item, tensors) for item in content)
        case "dict":
            return {key: _rebuild(item, tensors) for key, item in content}
    return content

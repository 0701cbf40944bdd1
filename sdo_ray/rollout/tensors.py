"""Tensors by name as bytes: policies, and what travels with them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import safetensors.torch
import torch

from rewards.pulls import Memory


def dump_tensors(tensors: Mapping[str, torch.Tensor], memory: Memory | None = None) -> bytes:
    """Tensors by name as safetensors bytes, and what a run knows of its rewards, in their metadata."""
    metadata = None if memory is None else {"memory": json.dumps(memory.to_json())}
    return safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, metadata)


def with_average(weights: Mapping[str, torch.Tensor], average: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A policy and an average of those before it, of the same names, to travel as one."""
    return {**weights, **{f"{_AVERAGE}{name}": tensor for name, tensor in average.items()}}


def parted(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
    """The inverse of `with_average`; None in the place of an average that there is not."""
    average = {name.removeprefix(_AVERAGE): x for name, x in tensors.items() if name.startswith(_AVERAGE)}
    return {name: x for name, x in tensors.items() if not name.startswith(_AVERAGE)}, average or None


_AVERAGE = "average of "


def memory_of(data: bytes) -> Memory:
    """What `dump_tensors` was given besides the tensors; that of a run before its first update if nothing."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    said = header.get("__metadata__", {}).get("memory")
    return Memory() if said is None else Memory.from_json(json.loads(said))


def load_tensors(data: bytes) -> dict[str, torch.Tensor]:
    """The inverse of `dump_tensors`, in the order of the names."""
    # safetensors gives them in an order that differs between processes, and collectives need one that does not.
    return dict(sorted(safetensors.torch.load(data).items()))

"""What one call of a network takes, weights apart, found on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sdo_ray.backprop.saved import saved_activations
from sdo_ray.backprop.tensors import floating
from sdo_ray.sizing.alive import Alive
from sdo_ray.sizing.attention import fused_attention


@dataclass(frozen=True)
class Takes:
    """One call of a network, with its backward pass and without. Bytes and operations; sums of calls add up."""

    passing: float = 0
    """Bytes alive at most in a call without a graph."""
    saved: float = 0
    """Bytes that autograd saves in a call with a graph."""
    held: float = 0
    """Bytes alive at most from the begin of a call with a graph to the end of its backward pass."""
    forward: float = 0
    """Floating-point operations of a call."""
    learning: float = 0
    """Those of a call with a graph and its backward pass."""

    def and_then(self, other: Takes) -> Takes:
        """Both calls, one after the other; graphs of both are held."""
        beyond = max(self.held - self.saved, other.held - other.saved)
        saved = self.saved + other.saved
        return Takes(
            max(self.passing, other.passing),
            saved,
            saved + beyond,
            self.forward + other.forward,
            self.learning + other.learning,
        )

    def times(self, count: float) -> Takes:
        """The same of `count` images at once."""
        return Takes(*(getattr(self, field.name) * count for field in fields(self)))


def takes(part: torch.nn.Module, call: Callable[[], Any]) -> Takes:
    """What `call` takes.

    Args:
        part: whose weights are there anyway.
        call: of `part`, whose inputs are on the meta device.
    """
    # Bytes and operations apart: to count these, torch takes some operations to pieces, which makes more of those.
    with torch.no_grad(), fused_attention(), Alive() as alive:
        call()
        passing = alive.most
    with torch.no_grad(), _operations() as counted:
        call()
        forward = counted()
    with fused_attention(), saved_activations(part) as saved:
        call()
        size = saved.bytes
        saved.clear()
    with fused_attention(), Alive() as alive:
        _learn(call)
        held = alive.most
    with _operations() as counted:
        _learn(call)
        return Takes(passing, size, held, forward, counted())


def _learn(call: Callable[[], Any]) -> None:
    """A call and its backward pass."""
    outputs = [x for x in floating(call()) if x.requires_grad]
    if outputs:
        torch.autograd.backward(outputs, [torch.empty_like(x) for x in outputs])


@contextmanager
def _operations() -> Iterator[Callable[[], int]]:
    with fused_attention() as attention, FlopCounterMode(display=False) as rest:
        yield lambda: rest.get_total_flops() + attention.count

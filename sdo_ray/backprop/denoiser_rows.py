"""How much work a denoiser does, in what does not depend on the machine."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sdo_ray.backprop.same_rows import call_sizes
from sdo_ray.backprop.tensors import floating


class DenoiserRows:
    """Rows of denoiser calls.

    Attributes:
        count: a row's forward pass as one, its backward pass as two.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """A forward hook with keyword arguments."""
        rows = next(call_sizes(args, kwargs), 0)
        self.count += rows
        learned = next((x for x in floating(output) if x.requires_grad), None)
        if learned is not None:
            learned.register_hook(lambda _: self._add_backward(rows))

    def _add_backward(self, rows: int) -> None:
        self.count += 2 * rows


@contextmanager
def denoiser_rows(denoisers: Iterable[torch.nn.Module]) -> Iterator[DenoiserRows]:
    """Count the rows of the calls in the block, guidance's too, and of their backward passes, then or later."""
    rows = DenoiserRows()
    handles = [denoiser.register_forward_hook(rows.add, with_kwargs=True) for denoiser in denoisers]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()

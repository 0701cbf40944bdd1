"""Pipelines that write over their tensors in place, after autograd has saved them for the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from torch.autograd.graph import saved_tensors_hooks


class SavedCopies:
    """Within the block autograd saves copies, except within `paused`.

    Without them the backward pass refuses what was written over. A pipeline's own arithmetic is on latents and
    images, so its copies are small; those of what networks save would not be.
    """

    def __init__(self) -> None:
        self._hooks = saved_tensors_hooks(_copy, _as_it_is)
        self._pauses = 0

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For the call of a network, which may call others."""
        self._pauses += 1
        if self._pauses == 1:
            self._hooks.__exit__()
        try:
            yield
        finally:
            self._pauses -= 1
            if self._pauses == 0:
                self._hooks.__enter__()


def _copy(x: torch.Tensor) -> torch.Tensor:
    return x.detach().clone()


def _as_it_is(x: torch.Tensor) -> torch.Tensor:
    return x

"""How much autograd keeps for a backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class SavedActivations:
    """What was saved inside a block of `saved_activations`."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    def add(self, x: torch.Tensor) -> None:
        """Count the storage of `x`, once however often parts of it are saved; on the meta device too."""
        storage = x.untyped_storage()
        self._storages[storage._cdata] = storage

    @property
    def bytes(self) -> int:
        """Bytes of the different storages."""
        return sum(storage.nbytes() for storage in self._storages.values())

    def clear(self) -> None:
        """Let go of the storages, which are held until then so that none is counted as another."""
        self._storages.clear()


@contextmanager
def saved_activations(*modules: torch.nn.Module) -> Iterator[SavedActivations]:
    """Count what autograd saves in the block, where only forward passes may run; the weights of `modules` apart.

    Activations that gradient checkpointing makes again during the backward pass are not seen.

    Args:
        modules: those whose parameters are there anyway.
    """
    weights = {p.untyped_storage()._cdata for module in modules for p in module.parameters()}
    saved = SavedActivations()

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage()._cdata not in weights:
            saved.add(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        yield saved

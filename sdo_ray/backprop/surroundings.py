"""What a network call depends on besides its arguments: random generators and autocast, to make it again the same."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import get_device_states, set_device_states

from sdo_ray.backprop.tensors import leaves, map_leaves


class Surroundings:
    """Those of a call that is about to be made.

    Args:
        arguments: of the call; the states of the generators among them are taken down, besides torch's own.
    """

    def __init__(self, arguments: Any) -> None:
        found = list(leaves(arguments))
        tensors = [leaf for leaf in found if isinstance(leaf, torch.Tensor)]
        self._cpu = torch.get_rng_state()
        self._devices, self._device_states = get_device_states(*tensors)
        self._generators = [leaf.get_state() for leaf in found if isinstance(leaf, torch.Generator)]
        kinds = {"cpu", *(x.device.type for x in tensors if x.device.type != "meta")}
        self._autocast = {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds}

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Within the block torch's own generators and autocast are as they were; they are left as found."""
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=self._devices))
            torch.set_rng_state(self._cpu)
            set_device_states(self._devices, self._device_states)
            for kind, (enabled, dtype) in self._autocast.items():
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled))
            yield

    def with_generators(self, arguments: Any) -> Any:
        """The arguments with generators of their own in the place of those among them, in the states of then."""
        states = iter(self._generators)

        def renewed(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Generator):
                return leaf
            generator = torch.Generator(leaf.device)
            generator.set_state(next(states))
            return generator

        return map_leaves(renewed, arguments)


def rows_of_generators(tree: Any, start: int, stop: int, batch: int) -> Any:
    """`tree`, in which lists of a generator for each of the batch are cut to the rows start .. stop - 1."""
    if type(tree) is dict:
        return {key: rows_of_generators(value, start, stop, batch) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        if _is_one_a_row(tree, batch):
            return tree[start:stop]
        return type(tree)(rows_of_generators(entry, start, stop, batch) for entry in tree)
    return tree


def _is_one_a_row(entries: Sequence[Any], batch: int) -> bool:
    return len(entries) == batch and all(isinstance(entry, torch.Generator) for entry in entries)

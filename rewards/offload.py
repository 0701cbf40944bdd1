"""Weights of rewards that are on their device while they score, and in main memory between batches."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from types import MemberDescriptorType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, UntypedStorage


@dataclass(frozen=True, eq=False)
class _Known:
    """A tensor on the device, what it is a copy of, and how it came."""

    x: Tensor
    at_rest: UntypedStorage
    there: UntypedStorage
    """Held, so that no other has its address meanwhile."""
    version: int | None
    layout: tuple[Any, ...]

    @classmethod
    def of(cls, x: Tensor, at_rest: UntypedStorage) -> "_Known":
        """`x`, which has just come from `at_rest`."""
        return cls(x, at_rest, x.untyped_storage(), _version(x), _layout(x))

    @property
    def is_as_it_came(self) -> bool:
        """Whether nothing was written to it, and it is none that others were put in place of (by `x.data = ...`)."""
        return self.version is not None and (self.version, self.layout) == (_version(self.x), _layout(self.x))


class Offload:
    """Has the tensors of rewards on a device within `on_device`, and at rest otherwise.

    What they held at rest is kept meanwhile, so the way back costs nothing but for what was written to on the device.

    Args:
        rewards: whose tensors are on `device`; looked for in attributes, and in what these hold. At rest from now on.
        device: where the rewards compute.
        rest: where their tensors are otherwise; in pinned memory where `device` is a GPU.
    """

    def __init__(self, rewards: Iterable[object], device: str, rest: str = "cpu") -> None:
        self._rewards = list(rewards)
        self._device, self._rest = torch.device(device), torch.device(rest)
        self._resting: list[Tensor] = []
        self._leave({})

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Within the block the rewards can score.

        Raises:
            torch.OutOfMemoryError: there is no room on the device; all is at rest then.
        """
        known: dict[int, _Known] = {}
        try:
            self._arrive(known)
            yield
        finally:
            self._leave(known)

    def _arrive(self, known: dict[int, _Known]) -> None:
        there: dict[int, UntypedStorage] = {}
        for x in self._resting:
            at_rest = x.untyped_storage()
            if at_rest._cdata not in there:
                there[at_rest._cdata] = _copied(at_rest, self._room(at_rest, self._device))
            x.data = _view(x, there[at_rest._cdata])
            known[id(x)] = _Known.of(x, at_rest)

    def _leave(self, known: dict[int, _Known]) -> None:
        self._resting = self._at_rest(known)
        known.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _at_rest(self, known: dict[int, _Known]) -> list[Tensor]:
        waiting = {id(x): x for x in self._resting if id(x) not in known}  # where there was no room for all
        there = [x for x in tensors_of(self._rewards) if x.device.type == self._device.type and id(x) not in waiting]
        storages = [x.untyped_storage() for x in there]  # held to the end, so that no two have one address
        at_rest, changed = dict[int, UntypedStorage](), set[int]()
        for x, storage in zip(there, storages, strict=True):
            if id(x) in known and known[id(x)].is_as_it_came:
                at_rest[storage._cdata] = known[id(x)].at_rest
            else:
                changed.add(storage._cdata)
        for x, storage in zip(there, storages, strict=True):
            if storage._cdata in changed:
                changed.remove(storage._cdata)
                at_rest[storage._cdata] = _copied(storage, self._room(storage, self._rest))
            x.data = _view(x, at_rest[storage._cdata])
        return [*waiting.values(), *there]

    def _room(self, storage: UntypedStorage, device: torch.device) -> Tensor:
        pinned = device.type == "cpu" and self._device.type == "cuda"
        return torch.empty(storage.nbytes(), dtype=torch.uint8, device=device, pin_memory=pinned)


def on_device(rewards: Iterable[object], device: str, offload: bool) -> Callable[[], AbstractContextManager[None]]:
    """What rewards score within: that of an `Offload`, or nothing."""
    return Offload(rewards, device).on_device if offload else nullcontext


def tensors_of(roots: Iterable[object]) -> Iterator[Tensor]:
    """The tensors in attributes of these objects, and in what these hold, each once.

    Looked into are objects' attributes and slots, mappings, lists, tuples, sets, deques, partial functions and bound
    methods; not what functions close over.
    """
    seen, left = set[int](), list(roots)
    while left:
        x = left.pop()
        if id(x) in seen or isinstance(x, type | ModuleType):
            continue
        seen.add(id(x))
        if isinstance(x, Tensor):
            if type(x) in (Tensor, torch.nn.Parameter):  # what others are made of is their own matter
                yield x
        elif isinstance(x, Mapping):
            left.extend(x.values())
        elif isinstance(x, list | tuple | set | frozenset | deque):
            left.extend(x)
        elif isinstance(x, partial):
            left.extend((x.func, x.args, x.keywords, *_attributes(x)))
        elif isinstance(x, MethodType):
            left.append(x.__self__)
        else:
            left.extend(_attributes(x))


def _attributes(x: object) -> Iterator[object]:
    if hasattr(x, "__dict__"):
        yield vars(x)
    for kind in type(x).__mro__:
        if "__slots__" in vars(kind):
            for slot in vars(kind).values():
                if isinstance(slot, MemberDescriptorType):
                    with suppress(AttributeError):  # one that is empty
                        yield slot.__get__(x)


def _version(x: Tensor) -> int | None:
    """What counts the writes to it; None: nothing does, as of those made in inference mode."""
    try:
        return x._version
    except RuntimeError:  # as `is_inference()` doesn't say of one that has been given other data
        return None


def _layout(x: Tensor) -> tuple[Any, ...]:
    return x.untyped_storage()._cdata, x.dtype, x.storage_offset(), x.size(), x.stride()


def _copied(storage: UntypedStorage, room: Tensor) -> UntypedStorage:
    room.copy_(torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage), non_blocking=room.is_cuda)
    return room.untyped_storage()


def _view(x: Tensor, storage: UntypedStorage) -> Tensor:
    """`x` as it would be on another storage."""
    return torch.empty(0, dtype=x.dtype, device=storage.device).set_(storage, x.storage_offset(), x.size(), x.stride())

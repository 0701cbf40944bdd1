"""Rewards of one process that rest on one network: loaded once, and what it makes of images computed once.

Nothing is remembered but within `shared_networks` and `same_images`.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")


@dataclass
class Networks:
    """Networks by what was asked for."""

    loaded: dict[Hashable, Any] = field(default_factory=dict)
    asked: list[tuple[Hashable, ...]] = field(default_factory=list)
    """In the order in which it was."""


_networks: ContextVar[Networks | None] = ContextVar("networks", default=None)
_seen: ContextVar[dict[Hashable, tuple[Tensor, Tensor]] | None] = ContextVar("seen", default=None)


@contextmanager
def shared_networks() -> Iterator[Networks]:
    """Within it, rewards that ask for one network are given the same."""
    networks = Networks()
    token = _networks.set(networks)
    try:
        yield networks
    finally:
        _networks.reset(token)


@contextmanager
def same_images() -> Iterator[None]:
    """Within it, a network that sees a tensor again does not compute anew; its graph is there until the end."""
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def network(load: Callable[..., _T], *request: Hashable) -> _T:
    """`load(*request)`, or, within `shared_networks`, what it gave before."""
    networks = _networks.get()
    if networks is None:
        return load(*request)
    networks.asked.append(request)
    key = (load, *request)
    if key not in networks.loaded:
        networks.loaded[key] = load(*request)
    found: _T = networks.loaded[key]
    return found


def is_shared() -> bool:
    """Whether this is within `shared_networks`."""
    return _networks.get() is not None


def seen(by: object, images: Tensor, compute: Callable[[], Tensor], *more: Hashable) -> Tensor:
    """`compute()`, or, within `same_images`, what it gave for the same tensor before.

    Args:
        by: the network.
        images: that it looks at. One that was written to since is another.
        compute: its pass.
        more: what else the outcome depends on.
    """
    remembered = _seen.get()
    if remembered is None:
        return compute()
    key = (id(by), id(images), images._version, torch.is_grad_enabled(), *more)
    if key not in remembered:
        remembered[key] = images, compute()  # with the images, whose `id` could else become another's
    return remembered[key][1]

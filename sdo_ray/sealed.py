"""Objects on their way through processes that have no use for them.

Ray opens whatever arrives with a call, and opening an object imports what it is made of: torch and diffusers take
seconds in each of the processes between a driver and its samplers and trainers, one after the other.

The bytes come from the same run, through Ray, which pickles all that it carries: they are trusted as its cluster is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ray import cloudpickle

T = TypeVar("T")


@dataclass(frozen=True)
class Sealed(Generic[T]):
    """An object as bytes, which only `open` imports."""

    pickled: bytes

    @classmethod
    def of(cls, value: T) -> Sealed[T]:
        """Of this process, for another of the same run."""
        return cls(cloudpickle.dumps(value))

    def open(self) -> T:
        """The object, anew at each call."""
        value: T = cloudpickle.loads(self.pickled)
        return value


class _Made:
    """A Ray Data callable, made where it works."""

    def __init__(self, make: Sealed[Callable[[], Callable[[Any], Any]]]) -> None:
        self._callable = make.open()()

    def __call__(self, batch: Any) -> Any:
        return self._callable(batch)


def made_there(name: str) -> type:
    """A class for Ray Data's pools of actors, which takes `make`, a sealed function that makes what is called there.

    Args:
        name: of the class, which Ray shows.
    """
    return type(name, (_Made,), {})

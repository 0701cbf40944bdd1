"""Work in a process of its own, which may die of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

T = TypeVar("T")

_GPUS = "CUDA_VISIBLE_DEVICES"


class Died(RuntimeError):
    """The process ended without a result.

    Attributes:
        doing: what it had said last that it does.
        how: how it ended.
    """

    def __init__(self, doing: str, how: str) -> None:
        super().__init__(f"{doing}: {how}")
        self.doing, self.how = doing, how


def apart(work: Callable[[Callable[[str], None]], T], timeout: float) -> T:
    """Call `work` in a process without GPUs, which leaves nothing behind.

    Args:
        work: given a function by which it says what it does next. Its result is pickled, and where there are GPUs it
            is itself.
        timeout: seconds that each of the things it does may take.

    Raises:
        Died: the process died, or took longer.
        Exception: what `work` raised.
    """
    # A copy of this process has all that is imported, which takes longer than the work; but CUDA does not survive that.
    context: Any = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, sender), daemon=True)
    with warnings.catch_warnings(), _no_gpus():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child does not use
        process.start()
    sender.close()
    doing = "starting"
    try:
        while receiver.poll(timeout):
            said, value = receiver.recv()
            if said == "result":
                return value
            if said == "error":
                raise value
            doing = value
    except EOFError:
        process.join()
        raise Died(doing, _ending(process.exitcode)) from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    raise Died(doing, f"it took longer than {timeout:g} s")


def _child(work: Callable[[Callable[[str], None]], T], sender: Connection) -> None:
    # The threads of this process's pools are not in the copy, and would be waited for.
    torch.set_num_threads(1)
    try:
        sender.send(("result", work(lambda doing: sender.send(("doing", doing)))))
    except KeyboardInterrupt:
        os._exit(1)
    except Exception as error:
        sender.send(("error", error))


@contextmanager
def _no_gpus() -> Iterator[None]:
    """The processes that are started within see no GPU."""
    before = os.environ.get(_GPUS)
    os.environ[_GPUS] = ""
    try:
        yield
    finally:
        del os.environ[_GPUS]
        if before is not None:
            os.environ[_GPUS] = before


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the process died of {signal.Signals(-code).name}"
    return f"the process ended itself with exit code {code}"

"""The lock of a run whose storage has none, as object stores: tickets, renewed while their driver lives.

A driver writes a ticket of its own, and then looks at all. Whoever sees no other holds the run: of two, the one that
looks last sees the ticket of the other, as stores show what was written to whoever looks afterwards (S3, Google's and
Azure's do). Whoever sees another takes its own back, and watches that other: one that is renewed is alive, one that is
not for `LASTS` seconds was a dead driver's and is removed. Only the store's clock is used.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from signal import SIGINT, raise_signal
from typing import Any

from pyarrow import fs

from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory

TICKETS = "drivers"
"""The directory of a run that has them."""
RENEWED = 20.0
"""Seconds between renewals of a ticket."""
LASTS = 120.0
"""Seconds without renewal until a ticket is taken for a dead driver's."""


class AlreadyRunning(RuntimeError):
    """Another driver works on this run."""

    @classmethod
    def by(cls, who: str, run: RunDirectory) -> AlreadyRunning:
        """Of a driver in words, and the run's directory."""
        return cls(f"{run.uri} is being worked on by {who}")


@contextmanager
def lease(run: RunDirectory, me: str) -> Iterator[None]:
    """Hold the run inside the block, which is interrupted should others have taken this driver for dead.

    Args:
        run: its directory.
        me: the driver in words, for others.

    Raises:
        AlreadyRunning: another driver does, or took over.
    """
    tickets, mine = _Tickets(run), f"{uuid.uuid4().hex}.json"
    _acquire(tickets, mine, me)
    ended, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not ended.wait(RENEWED):
            try:
                if mine not in tickets.all():
                    lost.set()
                    raise_signal(SIGINT)  # of the block, in the main thread
                    return
                tickets.write(mine, me)
            except OSError:  # the store is away; whoever takes over will be seen when it is back
                continue

    thread = threading.Thread(target=renew, name="driver's lease", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost.is_set():
            raise AlreadyRunning.by("another driver, which took this one for dead", run) from None
        raise
    finally:
        ended.set()
        thread.join()
        tickets.remove(mine)


def holder_of_lease(run: RunDirectory) -> str | None:
    """Who has a ticket that was renewed lately by this machine's clock, in words; None if nobody has."""
    tickets = _Tickets(run)
    for name, written in tickets.all().items():
        if time.time() - written < LASTS and (who := tickets.read(name)) is not None:
            return who
    return None


def _acquire(tickets: _Tickets, mine: str, me: str) -> None:
    while True:
        tickets.write(mine, me)
        others = _others(tickets.all(), mine)
        if not others:
            return
        tickets.remove(mine)
        said = tickets.read(next(iter(others))) or "another driver"
        print(f"{tickets.run.uri} was last worked on by {said}: seeing whether it is alive", flush=True)
        _see_whether_they_live(tickets, others)
        time.sleep(random.uniform(0, RENEWED / 10))  # two that met do not meet again


def _see_whether_they_live(tickets: _Tickets, others: Mapping[str, float]) -> None:
    """Return once all of them are gone, removed if need be."""
    began = time.monotonic()
    while others:
        time.sleep(RENEWED / 10)
        now = tickets.all()
        for name in [name for name, written in others.items() if now.get(name, written) > written]:
            raise AlreadyRunning.by(tickets.read(name) or "another driver", tickets.run)
        others = {name: written for name, written in others.items() if name in now}
        if time.monotonic() - began > LASTS:
            for name in others:
                tickets.remove(name)
            return


def _others(all_: Mapping[str, float], mine: str) -> dict[str, float]:
    return {name: written for name, written in all_.items() if name != mine}


class _Tickets:
    """The files."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._files, self._path = run.filesystem, f"{run.path}/{TICKETS}"

    def write(self, name: str, who: str) -> None:
        self.run.write_json(f"{TICKETS}/{name}", {"driver": who})

    def read(self, name: str) -> str | None:
        try:
            known: Any = self.run.read_json(f"{TICKETS}/{name}")
        except SettingsError:  # where a file is seen before it is whole
            return "another driver"
        return None if known is None else known["driver"]

    def all(self) -> dict[str, float]:
        """Name -> when it was written, in seconds of the store's clock."""
        found = self._files.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        return {info.base_name: info.mtime_ns / 1e9 for info in found if info.type == fs.FileType.File}

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._files.delete_file(f"{self._path}/{name}")

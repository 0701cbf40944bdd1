"""One driver at a time works on a cycle."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdo_ray.storage import RunDirectory

FILE = "driver.lock"


class AlreadyRunning(RuntimeError):
    """Another driver works on this cycle."""


@contextmanager
def driver_lock(run: RunDirectory) -> Iterator[None]:
    """Hold the lock of this cycle's driver inside the block; it goes with the process that holds it.

    For local storage, by a lock of the file system. Object stores have none; there, submission ids keep a cycle from
    running twice on a cluster (`sdo submit`).

    Raises:
        AlreadyRunning: another driver is.
    """
    if not run.is_local:
        yield
        return
    Path(run.path).mkdir(parents=True, exist_ok=True)
    with open(Path(run.path) / FILE, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunning(f"{run.uri} is being worked on by {file.read().strip() or 'another driver'}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield

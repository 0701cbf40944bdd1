"""One driver at a time works on a run."""

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
    """Another driver works on this run."""


@contextmanager
def driver_lock(run: RunDirectory) -> Iterator[None]:
    """Hold the lock of a run's driver inside the block; it goes with the process that holds it.

    For local storage, by a lock of the file system. Object stores have none; there, submission ids keep a run from
    going twice on a cluster (`sdo submit`).

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
        except OSError as error:
            print(f"{run.uri} cannot be locked ({error.strerror}): see that no other driver works on it", flush=True)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield

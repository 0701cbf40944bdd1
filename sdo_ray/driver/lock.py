"""One driver at a time works on a run."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdo_ray.driver.lease import AlreadyRunning, holder_of_lease, lease
from sdo_ray.storage import RunDirectory

__all__ = ["AlreadyRunning", "driver_lock", "holder"]

FILE = "driver.lock"


@contextmanager
def driver_lock(run: RunDirectory) -> Iterator[None]:
    """Hold the lock of a run's driver inside the block.

    On local storage it is one of the file system, and goes with the process that holds it. Object stores have none:
    there it is a `lease`.

    Raises:
        AlreadyRunning: another driver is.
    """
    me = f"process {os.getpid()} on {socket.gethostname()}"
    if not run.is_local:
        with lease(run, me):
            yield
        return
    Path(run.path).mkdir(parents=True, exist_ok=True)
    with open(Path(run.path) / FILE, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunning.by(file.read().strip() or "another driver", run) from None
        except OSError as error:
            print(f"{run.uri} cannot be locked ({error.strerror}): see that no other driver works on it", flush=True)
        file.truncate(0)
        file.write(me)
        file.flush()
        yield


def holder(run: RunDirectory) -> str | None:
    """Who works on a run now, in words; None if nobody does."""
    if not run.is_local:
        return holder_of_lease(run)
    try:
        with open(Path(run.path) / FILE) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another driver"
    except OSError:  # no lock was ever taken, or there are none here
        pass
    return None

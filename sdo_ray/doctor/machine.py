"""CPU cores, memory and disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sdo_ray.doctor.finding import Finding, ok, warning

GB = 10**9
LITTLE_DISK = 5 * GB
LITTLE_SHARED_MEMORY = 2 * GB


def cpu_cores() -> Finding:
    """CPU cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return warning("CPU cores", f"{cores}; sampling and training take turns", "give the machine two or more")
    return ok("CPU cores", str(cores))


def disk_space(directory: Path = Path()) -> Finding:
    """disk space."""
    free = shutil.disk_usage(directory).free
    says = f"{free / GB:.0f} GB free at {directory.resolve()}"
    if free < LITTLE_DISK:
        return warning(
            "disk space", says, "free some, or point run.storage at a larger disk: models and runs take gigabytes"
        )
    return ok("disk space", says)


def shared_memory(directory: Path = Path("/dev/shm")) -> Finding:
    """shared memory."""
    if not directory.is_dir():
        return ok("shared memory", f"no {directory} on this system; Ray uses its temporary directory")
    size = shutil.disk_usage(directory).total
    says = f"{size / GB:.1f} GB at {directory}"
    if size < LITTLE_SHARED_MEMORY:
        return warning(
            "shared memory", f"{says}; Ray's object store would spill to disk", "in Docker: --shm-size=4g or more"
        )
    return ok("shared memory", says)

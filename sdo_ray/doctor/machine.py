"""CPU cores, memory, disk, and the compiler that DeepSpeed needs on a CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from sdo_ray.doctor.finding import Finding, ok, problem, warning

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


def compiler() -> Finding:
    """C++ compiler."""
    name = os.environ.get("CXX", "c++")
    if (found := shutil.which(name)) is None:
        return problem(
            "C++ compiler",
            f"there is no {name}; DeepSpeed builds its CPU communication with one",
            "apt-get install g++, or set CXX to a compiler",
        )
    return ok("C++ compiler", found)


def ninja() -> Finding:
    """ninja."""
    if (found := shutil.which("ninja")) is not None:
        return ok("ninja", found)
    scripts = sysconfig.get_path("scripts")
    if (Path(scripts) / "ninja").exists():
        return problem("ninja", f"installed, but {scripts} is not on PATH", f"source {scripts}/activate")
    return problem("ninja", "not installed; DeepSpeed builds with it", "pip install ninja")


def deepspeed_communication() -> Finding:
    """DeepSpeed's CPU communication."""
    import torch

    subject = "DeepSpeed's CPU communication"
    if torch.cuda.is_available():
        return ok(subject, "not used: the GPUs communicate by NCCL")
    began = time.monotonic()
    # A process of its own, as DeepSpeed changes signal handlers, logging and the environment of the one it is in.
    code = "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as B; print(B().load(verbose=False).__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"DS_ACCELERATOR": "cpu"},
    )
    if done.returncode:
        cause = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        return problem(
            subject,
            f"does not build: {' '.join(cause)[:300]}",
            "see C++ compiler and ninja above; then remove TORCH_EXTENSIONS_DIR (by default ~/.cache/torch_extensions)",
        )
    return ok(subject, f"built and loaded in {time.monotonic() - began:.0f} s: {done.stdout.split()[-1]}")

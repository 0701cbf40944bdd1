"""What a model's work took, and not that of others on the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def clock_of(pipeline: DiffusionPipeline) -> Callable[[], float]:
    """Reads seconds: CPU time of the process, or the clock's on a GPU, whose work is waited for."""
    if pipeline.device.type != "cuda":
        return time.process_time

    def synchronized() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return synchronized

"""The most memory that tensors take at one time on the CPU. Torch alone, for environments of other projects too."""

from __future__ import annotations

from collections.abc import Callable

import torch


def peak_bytes(run: Callable[[], object]) -> int:
    """Bytes at most, at one time, of the tensors that `run` makes, those that checkpointing makes again among them.

    Args:
        run: on the CPU; under a profiler it is slower than it is.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    now = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most

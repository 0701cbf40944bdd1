"""The policy's versions on their way from trainers to samplers, and reports of updates on theirs to the driver.

trainer rank 0 -- publish(version, weights) --> PolicyStore <-- newest(at_most) ------ samplers
               -- report(UpdateReport) ------>              <-- wait_for(version) ---- gate
                                                            <-- next_report(after) --- driver
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray

from sdo_ray.training.records import UpdateReport


class PolicyStore:
    """An asynchronous Ray actor; version v of the policy has v updates in it.

    Args:
        keep: versions kept; samplers that lag further behind than this cannot be served.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._weights: dict[int, ray.ObjectRef[Any]] = {}
        self._reports: dict[int, UpdateReport] = {}
        self._failure: str | None = None
        self._changed = asyncio.Condition()

    async def publish(self, version: int, weights: bytes) -> None:
        """Make `version` the newest.

        Versions after it, published by trainers that died after their last checkpoint, are forgotten, reports too.

        Args:
            version: number of updates in the policy.
            weights: safetensors bytes of the adapter.
        """
        async with self._changed:
            self._weights = {v: ref for v, ref in self._weights.items() if version - self._keep < v < version}
            self._weights[version] = ray.put(weights)
            self._reports = {update: report for update, report in self._reports.items() if update < version}
            self._changed.notify_all()

    async def report(self, report: UpdateReport) -> None:
        """File the report of an update."""
        async with self._changed:
            self._reports[report.update] = report
            self._changed.notify_all()

    async def newest(self, at_most: int) -> tuple[int, list[ray.ObjectRef[Any]]]:
        """The newest version up to `at_most`, and a one-element list with the reference to its weights.

        Raises:
            LookupError: if no such version is kept.
        """
        versions = [version for version in self._weights if version <= at_most]
        if not versions:
            raise LookupError(f"no policy version up to {at_most} is kept; there are {sorted(self._weights)}")
        return max(versions), [self._weights[max(versions)]]

    async def wait_for(self, version: int, seconds: float) -> int:
        """Wait until `version` or a newer one is published, at most `seconds`; returns the newest, -1 if none."""
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: self._version() >= version), seconds)
            return self._version()

    async def give_up(self, why: str) -> None:
        """Have the driver end the run, because trying again would fail again."""
        self._failure = why

    async def failure(self) -> str | None:
        """Why the run was given up, or None."""
        return self._failure

    async def next_report(self, after: int, seconds: float) -> UpdateReport | None:
        """The report of the first update after `after`, waiting at most `seconds` for it."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: max(self._reports, default=-1) > after), seconds)
            except TimeoutError:
                return None
            return self._reports[min(update for update in self._reports if update > after)]

    def _version(self) -> int:
        return max(self._weights, default=-1)

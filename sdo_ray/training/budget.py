"""Ends a run whose time or samples are used up, with the policy that it has."""

from __future__ import annotations

from collections.abc import Iterable

from sdo_ray.training.decisions import Continue, Decision, Stop
from sdo_ray.training.records import UpdateReport


class Budget:
    """An `Observer` of a run's hours of training and samples, over all commands that worked on it.

    Args:
        max_hours: of updates; None is no limit.
        max_samples: sampled, skipped ones too; None is no limit.
        made: the updates made before.
    """

    def __init__(self, max_hours: float | None, max_samples: int | None, made: Iterable[UpdateReport]) -> None:
        self._max_hours, self._max_samples = max_hours, max_samples
        self._hours, self._samples = 0.0, 0
        for report in made:
            self._add(report)

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        self._add(report)
        if self._max_hours is not None and self._hours >= self._max_hours:
            return Stop(f"training.max_hours = {self._max_hours:g} are used up")
        if self._max_samples is not None and self._samples >= self._max_samples:
            return Stop(f"training.max_samples = {self._max_samples} are made")
        return Continue()

    def _add(self, report: UpdateReport) -> None:
        self._hours += report.seconds.get("update", 0.0) / 3600
        self._samples += report.num_samples + report.num_skipped

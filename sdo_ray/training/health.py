"""Ends a run that learns nothing, or from too little of what it samples."""

from __future__ import annotations

from collections import Counter, deque

from sdo_ray.training.decisions import Abort, Continue, Decision, Stop
from sdo_ray.training.records import UpdateReport


class Health:
    """An `Observer` that says of an idle update why it is one, and stops after some in a row.

    An update is idle if its gradient is exactly 0, as it is without a single sample, or if more than a share of its
    samples was skipped. A run that has learned, and now only meets gradients of exactly 0, has come to the end of what
    its rewards ask for, all at their caps, say: its policy is handed out. Any other ends as failed.

    Args:
        max_idle_updates: idle updates in a row that end the run.
        max_skipped_share: of an update's samples, in [0, 1].
    """

    def __init__(self, max_idle_updates: int, max_skipped_share: float) -> None:
        self._max_idle_updates = max_idle_updates
        self._max_skipped_share = max_skipped_share
        self._idle: deque[UpdateReport] = deque()
        self._learned = False

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        self._learned |= report.gradient_norm > 0
        if (why := self._why_idle(report)) is None:
            self._idle.clear()
            return Continue()
        self._idle.append(report)
        count = len(self._idle)
        if count < self._max_idle_updates:
            print(
                f"update {report.update + 1}: {why}; the run ends after {self._max_idle_updates} such updates in a row",
                flush=True,
            )
            return Continue()
        ended = f"{count} updates in a row: {why}" if count > 1 else why
        satisfied = self._learned and not any(r.num_skipped for r in self._idle)
        return Stop(ended) if satisfied else Abort(ended)

    def _why_idle(self, report: UpdateReport) -> str | None:
        samples = report.num_samples + report.num_skipped
        share = report.num_skipped / samples
        if report.gradient_norm > 0 and share <= self._max_skipped_share:
            return None
        if not report.num_skipped:
            return "nothing was learned, every gradient is exactly 0; is a reward constant, or at its cap everywhere"
        causes = Counter(report.failures).most_common(1)
        cause = causes[0][0] if causes else "rewards or gradients that are not finite"
        return f"{report.num_skipped} of {samples} samples were skipped ({cause})"

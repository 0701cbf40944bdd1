"""Ends a run that learns nothing, or from too little of what it samples, or has diverged."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

import torch

from rewards.mix import shaped
from rewards.terms import RewardTerm
from sdo_ray.rollout.numbers import DIVERGED
from sdo_ray.training.decisions import Abort, Continue, Decision, RollBack, Stop
from sdo_ray.training.records import UpdateReport


class Health:
    """An `Observer` that says of an idle update why it is one, and stops after some in a row.

    An update is idle if its gradient is exactly 0, as it is without a single sample, or if more than a share of its
    samples was skipped. How a run ends that has learned before depends on them:

    - Nothing was skipped, and the reward is no lower than at the first update: it has what its rewards ask for, all at
      their caps, say. Its policy is handed out.
    - Samples or gradients are not finite, or the reward is lower, all samples saturated, say: it has diverged. It is
      rolled back to the last version that an update learned from, or the newest kept before; where none is kept, it
      ends as failed.

    The reward is lower if the mixed one is, as recorded, and also what is mixed of mean scores by the weights, caps and
    targets of now: those that updates were made with may have been others, and of other rewards.

    Any other run ends as failed.

    Args:
        max_idle_updates: idle updates in a row that end the run.
        max_skipped_share: of an update's samples, in [0, 1].
        terms: of the mixed reward.
        newest_kept: updates -> the newest version kept with at most so many; 0 if there is none.
        made: the updates made before.
    """

    def __init__(
        self,
        max_idle_updates: int,
        max_skipped_share: float,
        terms: Sequence[RewardTerm],
        newest_kept: Callable[[int], int],
        made: Iterable[UpdateReport] = (),
    ) -> None:
        self._max_idle_updates = max_idle_updates
        self._max_skipped_share = max_skipped_share
        self._terms = terms
        self._newest_kept = newest_kept
        self._idle: deque[UpdateReport] = deque()
        self._first: UpdateReport | None = None
        self._good: int | None = None
        for report in made:
            if self._why_idle(report) is None:
                self._learned_from(report)

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        if (why := self._why_idle(report)) is None:
            self._learned_from(report)
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
        return self._end(f"{count} updates in a row: {why}" if count > 1 else why)

    def _learned_from(self, report: UpdateReport) -> None:
        if self._first is None:
            self._first = report
        self._good = report.update - math.ceil(report.policy_lag)

    def _end(self, why: str) -> Decision:
        if self._good is None or self._first is None:
            return Abort(why)
        if all(DIVERGED in report.failures for report in self._idle):
            return self._rolled_back(self._good, f"it diverged, {why}")
        if any(report.num_skipped for report in self._idle):
            return Abort(why)
        before, now = self._first.reward.mean, self._idle[-1].reward.mean
        mixed_before, mixed_now = self._mixed(self._first, self._idle[-1])
        if before is not None and now is not None and now < before and mixed_now < mixed_before:
            return self._rolled_back(self._good, f"it diverged, to a reward of {now:.3g} from {before:.3g}; {why}")
        return Stop(why)

    def _rolled_back(self, good: int, why: str) -> Decision:
        if self._newest_kept(good) > 0:
            return RollBack(good, why)
        return Abort(
            f"{why}; no version is kept from before, so begin again, as another run.name, with a lower "
            "training.learning_rate or a smaller training.checkpoint_every"
        )

    def _mixed(self, first: UpdateReport, last: UpdateReport) -> tuple[float, float]:
        """Of both, mixed of the mean scores that both have."""
        mixed = torch.zeros(2, dtype=torch.float64)
        for term in self._terms:
            means = [report.scores[term.key].mean for report in (first, last) if term.key in report.scores]
            scores = [mean for mean in means if mean is not None]
            if len(scores) == 2:
                mixed += term.weight * shaped(term, torch.tensor(scores, dtype=torch.float64))
        return mixed[0].item(), mixed[1].item()

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

"""Says, while there is time to stop, that groups of samples say little."""

from __future__ import annotations

from collections import deque

from sdo_ray.policy_gradient import LEAST_GROUP, check_policy_plan
from sdo_ray.rollout.settings import PlanSettings
from sdo_ray.training.decisions import Continue, Decision
from sdo_ray.training.records import UpdateReport

UPDATES = 5
"""That a warning is about."""
MOST_FLAT = 0.8
"""Share of groups whose rewards are all equal, above which there is a warning."""
LEAST_AGREEMENT = 0.6
"""Share of samples whose advantage has one sign by both halves of their group, below which there is a warning."""


class GroupWatch:
    """An `Observer` that prints each of its warnings once.

    Args:
        settings: a policy-gradient estimator.
        num_steps: that the scheduler takes.
    """

    def __init__(self, settings: PlanSettings, num_steps: int) -> None:
        [plan] = check_policy_plan(settings.name, num_steps, settings.options, draws=1)
        self._recent: deque[dict[str, float]] = deque(maxlen=UPDATES)
        self._said: set[str] = set()
        if plan.compared < LEAST_GROUP and not plan.differences:
            self._say(
                f"samples are compared with {plan.compared - 1} others, and advantages are mostly noise below "
                f"{LEAST_GROUP - 1}: give groups more samples"
            )

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        self._recent.append(report.groups)
        if len(self._recent) == UPDATES:
            flat, agreement = self._mean("flat_share"), self._mean("sign_agreement")
            if flat is not None and flat > MOST_FLAT:
                self._say(
                    f"in {flat:.0%} of the groups all rewards are equal, and teach nothing: more noise (eta) helps"
                )
            if agreement is not None and agreement < LEAST_AGREEMENT:
                self._say(
                    f"whether a sample is better depends on which half of its group it is compared with (signs agree "
                    f"for {agreement:.0%}): give groups more samples"
                )
        return Continue()

    def _mean(self, name: str) -> float | None:
        found = [numbers[name] for numbers in self._recent if name in numbers]
        return sum(found) / len(found) if found else None

    def _say(self, warning: str) -> None:
        kind = warning.partition(":")[2]
        if kind not in self._said:
            self._said.add(kind)
            print(f"warning: {warning}", flush=True)

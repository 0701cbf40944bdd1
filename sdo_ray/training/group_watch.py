"""Says, while there is time to stop, that groups of samples say little."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

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
MOST_STOPPED = 0.5
"""Share of samples that a loss gives no gradient, above which there is a warning."""
LEAST_CONTRAST = 0.05
"""Standard deviation of NFT's weights, which are in 0 .. 1, below which there is a warning."""


def in_words(groups: Mapping[str, float]) -> str:
    """The numbers of an update's groups (`Contribution.groups`) that people look at; "" without groups."""
    said = [f"{groups[name]:.0%} {words}" for name, words in _SHARES.items() if name in groups]
    if groups.get("gradient_norm"):
        said.append(f"|u|/|g| {groups['group_norm'] / groups['gradient_norm']:.2g}")
        said += [f"cosine {groups['cosine']:.2f}"] if "cosine" in groups else []
    return f"groups: {', '.join(said)}" if said else ""


_SHARES = {"flat_share": "flat", "sign_agreement": "signs agree", "clipped": "clipped", "masked": "masked"}


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
            stopped = max(self._mean(name) or 0.0 for name in ("clipped", "masked"))
            if stopped > MOST_STOPPED:
                self._say(
                    f"{stopped:.0%} of the samples get no gradient, as the policy has moved by `clip` since they were "
                    "made: raise it, or lower training.max_policy_lag or learning_rate"
                )
            self._watch_forward()
        return Continue()

    def _watch_forward(self) -> None:
        deviation, contrast = self._mean("deviation"), self._mean("contrast")
        if contrast is not None and not deviation:
            self._say(
                "the two policies that NFT compares are one and the same, which leaves a regression weighted by "
                "advantages: let the average forget more slowly (decay: 0.9)"
            )
        if contrast is not None and contrast < LEAST_CONTRAST:
            self._say(
                f"NFT weighs good and bad samples almost alike (deviation {contrast:.2g} of weights in 0 .. 1): "
                "advantage: group has more contrast than global-std"
            )

    def _mean(self, name: str) -> float | None:
        found = [numbers[name] for numbers in self._recent if name in numbers]
        return sum(found) / len(found) if found else None

    def _say(self, warning: str) -> None:
        kind = warning.partition(":")[2]
        if kind not in self._said:
            self._said.add(kind)
            print(f"warning: {warning}", flush=True)

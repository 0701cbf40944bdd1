"""Updates in MLflow: the observer that logs each once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from sdo_ray.tracking.outbox import NotSent, Outbox
from sdo_ray.tracking.run import TrackedRun
from sdo_ray.training.decisions import Continue, Decision
from sdo_ray.training.records import UpdateReport

KEY = "gradient_norm"
"""A metric of every update; a step that has it has all."""
LONGEST_OUTAGE = 1800.0
"""Seconds that a run whose training is done waits for MLflow, which registers its result."""
AT_A_FAILURE = 5.0
"""Seconds that a run which ends otherwise waits for what is on its way; the rest is logged when it goes on."""


class UpdateLog:
    """Logs update u as step u + 1, unless MLflow has it already, inside the block.

    Training does not wait for MLflow: while it is away updates queue up. Their numbers are in the checkpoints too.

    Args:
        tracked: the MLflow run.
    """

    def __init__(self, tracked: TrackedRun) -> None:
        self._tracked = tracked
        self._logged = set(tracked.logged(KEY))
        self._unsure = False
        self._outbox = Outbox("MLflow", self._log)

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        self._outbox.put(report)
        return Continue()

    def catch_up(self, reports: Iterable[UpdateReport]) -> None:
        """Log those that a driver who died had not."""
        for report in reports:
            self.observe(report)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until MLflow has all of them.

        Raises:
            NotSent: it has not.
        """
        try:
            self._outbox.flush(LONGEST_OUTAGE if kind is None else AT_A_FAILURE)
        except NotSent:
            if kind is None:
                raise
        finally:
            self._outbox.close()

    def _log(self, report: UpdateReport) -> None:
        if self._unsure:  # a request that failed may have arrived, and its answer not
            self._logged |= self._tracked.logged(KEY)
            self._unsure = False
        step = report.update + 1
        if step in self._logged:
            return
        preview = {} if report.preview is None else {"preview": report.preview}
        self._unsure = True
        self._tracked.log_step(step, numbers(report), preview)
        self._unsure = False
        self._logged.add(step)


_NAMES = {"anchor": "anchor_distance"}
"""By which groups are not needed."""


def numbers(report: UpdateReport) -> dict[str, float]:
    """What there is to log of an update, by MLflow's names."""
    metrics: dict[str, float | None] = {
        "reward/mean": report.reward.mean,
        "reward/std": report.reward.std,
        "gradient_norm": report.gradient_norm,
        "policy_lag": report.policy_lag,
        "samples": report.num_samples,
        "samples_skipped": report.num_skipped,
        "batches_split": report.num_splits,
    }
    for name, spread in report.scores.items():
        metrics |= {f"score/{name}/mean": spread.mean, f"score/{name}/std": spread.std}
    metrics |= {_NAMES.get(name, f"groups/{name}"): value for name, value in report.groups.items()}
    metrics |= {f"reward_gradient_norm/{name}": pull.norm for name, pull in report.pulls.items()}
    metrics |= {f"reward_cosine/{pair}": cosine for pair, cosine in report.cosines.items()}
    for name, numbers_of in report.reward_health.items():
        metrics |= {f"reward_{what}/{name}": value for what, value in numbers_of.items()}
    metrics |= {f"step_gradient_norm/{step:03d}": norm for step, norm in report.step_norms.items()}
    if report.held_out is not None:
        metrics |= {f"held_out/{name}": mean for name, mean in report.held_out.means.items()}
    metrics |= {f"seconds/{part}": value for part, value in report.seconds.items()}
    return {key: value for key, value in metrics.items() if value is not None}

"""Updates in MLflow: the observer that logs each once."""

from __future__ import annotations

from collections.abc import Iterable

from sdo_ray.tracking.run import TrackedRun
from sdo_ray.training.decisions import Continue, Decision
from sdo_ray.training.records import UpdateReport


class UpdateLog:
    """Logs update u as step u + 1, unless MLflow has it already.

    Args:
        tracked: the MLflow run.
    """

    def __init__(self, tracked: TrackedRun) -> None:
        self._tracked = tracked
        self._logged = set(tracked.logged("reward/mean"))

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        step = report.update + 1
        if step not in self._logged:
            preview = {} if report.preview is None else {"preview": report.preview}
            self._tracked.log_step(step, numbers(report), preview)
            self._logged.add(step)
        return Continue()

    def catch_up(self, reports: Iterable[UpdateReport]) -> None:
        """Log those that a driver who died had not."""
        for report in reports:
            self.observe(report)


def numbers(report: UpdateReport) -> dict[str, float]:
    """What there is to log of an update, by MLflow's names."""
    metrics: dict[str, float | None] = {
        "reward/mean": report.reward.mean,
        "reward/std": report.reward.std,
        "gradient_norm": report.gradient_norm,
        "policy_lag": report.policy_lag,
        "samples": report.num_samples,
        "samples_skipped": report.num_skipped,
    }
    for name, spread in report.scores.items():
        metrics |= {f"score/{name}/mean": spread.mean, f"score/{name}/std": spread.std}
    metrics |= {f"groups/{name}": value for name, value in report.groups.items()}
    metrics |= {f"reward_gradient_norm/{name}": pull.norm for name, pull in report.pulls.items()}
    metrics |= {f"reward_cosine/{pair}": cosine for pair, cosine in report.cosines.items()}
    metrics |= {f"step_gradient_norm/{step:03d}": norm for step, norm in report.step_norms.items()}
    metrics |= {f"seconds/{part}": value for part, value in report.seconds.items()}
    return {key: value for key, value in metrics.items() if value is not None}

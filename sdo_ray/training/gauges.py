"""What Prometheus sees of a run while it goes on, through the metrics port of the node that the driver is on.

Ray puts `ray_` in front of every name. Reward actors export `sdo_reward_seconds` themselves, see rewards/service.py.
MLflow keeps the whole history; these are for dashboards and alarms over many runs.
"""

from __future__ import annotations

import threading
from typing import Any, Self

from sdo_ray.training.decisions import Continue, Decision
from sdo_ray.training.records import UpdateReport

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sdo_updates_planned": ("Updates in the whole run.", ()),
    "sdo_updates_done": ("Updates made so far.", ()),
    "sdo_reward_mean": ("Mixed reward, mean over the newest update's samples.", ()),
    "sdo_score_mean": ("A reward's raw score, mean over the newest update's samples.", ("reward",)),
    "sdo_reward_gradient_norm": ("Size of a reward's image gradients in the newest update.", ("reward",)),
    "sdo_reward_cosine": ("How far two rewards pull images the same way, mean cosine in the newest update.", ("pair",)),
    "sdo_policy_lag": ("Updates between the policy that sampled and the one that learns, mean over samples.", ()),
    "sdo_gradient_norm": ("Norm of the newest update's mean gradient before clipping.", ()),
    "sdo_samples_learned_from": ("Samples in the newest update.", ()),
    "sdo_samples_skipped": ("Samples skipped of the newest update, not finite.", ()),
    "sdo_batches_split": ("Times a batch of the newest update was made in halves for want of memory.", ()),
    "sdo_samples_skipped_share": ("Share of all samples since the driver started that were skipped.", ()),
    "sdo_trainer_idle_share": ("Share of the newest update that the trainers waited for contributions.", ()),
    "sdo_reward_restarts": ("Restarts of each reward's actors since the rewards were started.", ("reward",)),
    "sdo_seconds": ("Seconds of the newest update, by part.", ("part",)),
}
"""Name -> description, tags besides `run`."""

REPEATED = 5.0
"""Seconds after which every gauge is set again: Ray drops one that was not for a while, and an update may take long."""


class RunGauges:
    """The gauges of one run, as long as the block lasts.

    Args:
        run: the run's name, a tag of every gauge.
        updates: in the whole run.
    """

    def __init__(self, run: str, updates: int) -> None:
        from ray.util.metrics import Gauge

        self._gauges: dict[str, Any] = {
            name: Gauge(name, description, ("run", *tags)).set_default_tags({"run": run})
            for name, (description, tags) in GAUGES.items()
        }
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._ended = threading.Event()
        self._samples = self._skipped = 0
        self._set("sdo_updates_planned", updates)
        self._set("sdo_updates_done", 0)  # until the first update, which may never come

    def __enter__(self) -> Self:
        threading.Thread(target=self._repeat, name="run-gauges", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        self._samples += report.num_samples + report.num_skipped
        self._skipped += report.num_skipped
        self._set("sdo_updates_done", report.update + 1)
        self._set("sdo_reward_mean", report.reward.mean)
        for name, spread in report.scores.items():
            self._set("sdo_score_mean", spread.mean, reward=name)
        for name, pull in report.pulls.items():
            self._set("sdo_reward_gradient_norm", pull.norm, reward=name)
        for pair, cosine in report.cosines.items():
            self._set("sdo_reward_cosine", cosine, pair=pair)
        self._set("sdo_policy_lag", report.policy_lag)
        self._set("sdo_gradient_norm", report.gradient_norm)
        self._set("sdo_samples_learned_from", report.num_samples)
        self._set("sdo_samples_skipped", report.num_skipped)
        self._set("sdo_batches_split", report.num_splits)
        self._set("sdo_samples_skipped_share", self._skipped / self._samples if self._samples else None)
        seconds = report.seconds
        self._set("sdo_trainer_idle_share", seconds["waiting"] / seconds["update"] if seconds["update"] else None)
        for reward, health in report.reward_health.items():
            self._set("sdo_reward_restarts", health["restarts"], reward=reward)
        for part, value in seconds.items():
            self._set("sdo_seconds", value, part=part)
        return Continue()

    def _set(self, name: str, value: float | None, **tags: str) -> None:
        """Set a gauge; what has no value in this update keeps the last."""
        if value is not None:
            self._values[name, tuple(tags.items())] = float(value)
            self._gauges[name].set(float(value), tags)

    def _repeat(self) -> None:
        while not self._ended.wait(REPEATED):
            for (name, tags), value in list(self._values.items()):
                self._gauges[name].set(value, dict(tags))

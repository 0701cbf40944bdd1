"""What an update reports."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rewards.pulls import Memory, Pull, added
from sdo_ray.rollout.looks import HeldOutMeans
from sdo_ray.rollout.numbers import DIVERGED, means

if TYPE_CHECKING:
    from sdo_ray.rollout.records import Contribution


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a score over the samples of an update; NaN-free, both None if no sample counts."""

    mean: float | None
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Of those values that are there and finite; the deviation is that of the population."""
        finite = [value for value in values if value is not None and abs(value) < float("inf")]
        return cls(statistics.fmean(finite), statistics.pstdev(finite)) if finite else cls(None, None)


@dataclass(frozen=True)
class UpdateReport:
    """One policy update, as people and MLflow see it."""

    update: int
    """From 0; it made policy version `update + 1`."""
    reward: Spread
    """The mixed reward."""
    scores: dict[str, Spread]
    """Every reward's raw score, watched ones too."""
    gradient_norm: float
    """Norm of the mean gradient before clipping."""
    step_norms: dict[int, float]
    """Kept step -> mean over the batches that kept it of the reward gradient's norm at the denoiser's output."""
    policy_lag: float
    """Mean over samples of update - policy version."""
    num_samples: int
    """Samples learned from."""
    num_skipped: int
    """Samples skipped for a reward or gradient that was not finite."""
    seconds: dict[str, float]
    """`sampling`, `rewarding`, `backward`: means over batches; `waiting`: the trainer for batches; `update`: all."""
    groups: dict[str, float] = field(default_factory=dict)
    """Of batches in groups, means over them; see `Contribution.groups`."""
    pulls: dict[str, Pull] = field(default_factory=dict)
    """Reward key -> how it pulled on the update's images; empty in updates of earlier versions."""
    cosines: dict[str, float] = field(default_factory=dict)
    """"KEY/KEY" of two rewards -> how far they pull the same way: mean cosine over batches."""
    failures: tuple[str, ...] = ()
    """Why whole batches were skipped, one cause a batch, and `DIVERGED` once more where the whole update was given up;
    none for a reward that was not finite for some samples."""
    reward_health: dict[str, dict[str, float]] = field(default_factory=dict)
    """Reward key -> `seconds` of its actors' calls, mean, and `restarts` so far; the driver's, not in checkpoints."""
    num_splits: int = 0
    """How often a sampler batch, or a part of one, was made in halves for want of memory."""
    held_out: HeldOutMeans | None = None
    """How a version did on held-out prompts, where one was looked at."""
    preview: bytes | None = None
    """PNG of the preview prompts under the policy that sampled this update, where one was due."""

    def without_step(self) -> UpdateReport:
        """The same of an update that was given up, with all its samples, as its gradient is not finite."""
        skipped = self.num_samples + self.num_skipped
        return replace(self, num_samples=0, num_skipped=skipped, failures=(*self.failures, DIVERGED))

    def to_json(self) -> dict[str, Any]:
        """All numbers; the preview and what the driver alone knows stay out."""
        return asdict(replace(self, preview=None, reward_health={}))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> UpdateReport:
        """The inverse of `to_json`."""
        data = dict(data)
        if "num_left_out" in data:  # its name in earlier versions
            data["num_skipped"] = data.pop("num_left_out")
        spreads = {name: Spread(**spread) for name, spread in data["scores"].items()}
        norms = {int(step): norm for step, norm in data["step_norms"].items()}
        pulls = {key: Pull(**pull) for key, pull in data.get("pulls", {}).items()}
        data |= {"reward": Spread(**data["reward"]), "scores": spreads, "step_norms": norms, "pulls": pulls}
        if data.get("held_out"):
            data["held_out"] = HeldOutMeans(**data["held_out"])
        return cls(**data | {"failures": tuple(data.get("failures", ()))})


def summarize(
    contributions: Sequence[Contribution], *, gradient_norm: float, waiting: float, seconds: float
) -> UpdateReport:
    """The report of one update from all of its contributions.

    Args:
        contributions: of one update, from all workers, gradients not needed.
        gradient_norm: norm of the mean gradient.
        waiting: seconds the trainer waited for the contributions.
        seconds: wall-clock seconds since the update before.
    """
    norms: dict[int, list[float]] = {}
    for contribution in contributions:
        for step, norm in contribution.step_norms.items():
            norms.setdefault(step, []).append(norm)
    samples = sum(c.num_rows for c in contributions)
    lag = sum((c.update - c.policy_version) * c.num_rows for c in contributions)
    names = dict.fromkeys(name for c in contributions for name in c.scores)
    parts = ("sampling", "rewarding", "backward")
    return UpdateReport(
        update=contributions[0].update,
        reward=Spread.of([value for c in contributions for value in c.mixed]),
        scores={name: Spread.of([v for c in contributions for v in c.scores.get(name, ())]) for name in names},
        gradient_norm=gradient_norm,
        step_norms={step: statistics.fmean(values) for step, values in sorted(norms.items())},
        policy_lag=lag / samples,
        num_samples=sum(c.num_samples for c in contributions),
        num_skipped=sum(c.num_skipped for c in contributions),
        seconds={part: statistics.fmean(getattr(c.seconds, part) for c in contributions) for part in parts}
        | {"waiting": waiting, "update": seconds},
        groups=means(c.groups for c in contributions),
        pulls=added(c.pulls for c in contributions),
        cosines=means(c.cosines for c in contributions),
        num_splits=sum(c.num_splits for c in contributions),
        held_out=next((c.held_out for c in contributions if c.held_out is not None), None),
        failures=tuple(c.failure for c in contributions if c.failure is not None),
    )


def memory_after(reports: Sequence[UpdateReport]) -> Memory:
    """What a run knows of its rewards after these updates, in their order."""
    memory = Memory()
    for report in reports:
        memory = memory.after(report.pulls)
    return memory

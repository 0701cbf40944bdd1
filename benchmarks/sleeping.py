"""A reward and a model that take their time and no CPU, and real runs with them."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline

if TYPE_CHECKING:
    from benchmarks.simulate import Layout
    from sdo_ray.training.decisions import Decision
    from sdo_ray.training.records import UpdateReport

SECONDS = 2.0
"""That sampling a batch sleeps, and rewarding one in `measure`."""


class Sleeping:
    """How dark the images are, after a while.

    Args:
        seconds: that it sleeps at each call.
    """

    differentiable = True

    def __init__(self, *, seconds: float = 1.0) -> None:
        self.seconds = seconds

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores [B]."""
        time.sleep(self.seconds)
        return 1 - images.mean(dim=(1, 2, 3))


class SleepingPipeline(StableDiffusionPipeline):
    """Stable Diffusion that sleeps for `SECONDS` before its first step."""

    def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
        """As the pipeline's."""
        time.sleep(SECONDS)
        return super().prepare_latents(*args, **kwargs)


@dataclass(frozen=True)
class Measured:
    """Means over all updates of a run but the first; seconds."""

    seconds: float
    """An update."""
    sampling: float
    """Of a batch; and so on."""
    rewarding: float
    backward: float


class Reports:
    """An observer that keeps what it sees.

    Args:
        updates: after so many it ends the run, whose comparison at its end is not waited for; None: it does not.
    """

    def __init__(self, updates: int | None = None) -> None:
        self.seen: list[UpdateReport] = []
        self._updates = updates

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        from sdo_ray.training.decisions import Abort, Continue

        self.seen.append(report)
        return Abort("measured") if len(self.seen) == self._updates else Continue()


def measure(directory: Path, layout: Layout, updates: int) -> Measured:
    """A real run in `directory`, of a tiny model."""
    import ray
    import yaml

    from benchmarks.whole_run import settings, write
    from pipelines.align import align
    from sdo_ray.config.align import AlignSettings
    from sdo_ray.config.loading import load_settings
    from sdo_ray.training.group import RunGivenUp

    path = write("sd15", directory, device="cpu", tiny=True)
    given = settings("sd15", directory, device="cpu", tiny=True)
    given["model"]["pipeline"] = "benchmarks.sleeping:SleepingPipeline"
    given["sampling"] = {"num_inference_steps": 2, "guidance_scale": 1.0}
    reward = {"name": "benchmarks.sleeping:Sleeping", "options": {"seconds": SECONDS}, "num_cpus": 0.1}
    given["rewards"] = {"terms": [reward | {"count": layout.replicas}]}
    given["samplers"] = {"count": layout.samplers, "batch_size": 1, "in_flight": layout.in_flight, "num_cpus": 0.1}
    given["trainers"] = {"count": layout.trainers}
    given["training"] |= {"updates": updates, "batch_size": layout.batches, "checkpoint_every": updates}
    given["training"]["max_policy_lag"] = layout.max_policy_lag
    given["tracking"] = {"experiment": "sleeping", "preview_prompts": []}
    path.write_text(yaml.safe_dump(given))
    reports = Reports(updates)
    try:
        with contextlib.suppress(RunGivenUp):
            align(load_settings(AlignSettings, path), [reports])
    finally:
        ray.shutdown()
    later = [report.seconds for report in reports.seen[1:]]
    parts = ("update", "sampling", "rewarding", "backward")
    return Measured(*(statistics.fmean(seconds[part] for seconds in later) for part in parts))

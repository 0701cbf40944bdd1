"""How long samplers and trainers wait in a run whose reward takes its time: `python -m benchmarks.idle`.

Real runs of the embedded model. The reward sleeps, which takes no CPU, so that what is measured is who waits for whom:

    samplers' idle share  1 - (sampling + backward, over all batches) / (samplers x wall-clock seconds)
    trainers' idle share  seconds waited for contributions / wall-clock seconds

over all updates but the first, which also waits for everything to start.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

import pipelines
from benchmarks.sleeping import Reports
from pipelines.align import align
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings

CONFIGS = Path(pipelines.__file__).parent / "configs"


@dataclass(frozen=True)
class Case:
    """What is compared."""

    replicas: int
    """Actors of the reward."""
    in_flight: int
    """Batches in a sampler's hands."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--batches", type=int, default=8, help="sampler batches of an update")
    parser.add_argument("--seconds", type=float, default=1.0, help="that the reward sleeps")
    parser.add_argument(
        "--cases", nargs="+", default=["1x1", "1x2", "2x2", "4x4"], help="actors of the reward x batches in flight"
    )
    given = parser.parse_args()
    print("| reward's actors | in flight | samplers idle | trainers idle | seconds an update |\n|---|---|---|---|---|")
    for case in (Case(*map(int, text.split("x"))) for text in given.cases):
        samplers, trainers, seconds = measure(case, given.updates, given.batches, given.seconds)
        print(f"| {case.replicas} | {case.in_flight} | {samplers:.0%} | {trainers:.0%} | {seconds:.1f} |", flush=True)


def measure(case: Case, updates: int, batches: int, seconds: float) -> tuple[float, float, float]:
    """Idle share of samplers and trainers, and seconds an update.

    Args:
        case: what is measured.
        updates: of the run.
        batches: of an update.
        seconds: that the reward sleeps.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "settings.yaml")
        path.write_text(yaml.safe_dump(_settings(directory, case, updates, batches, seconds)))
        reports = Reports()
        try:
            align(load_settings(AlignSettings, path), [reports])
        finally:
            ray.shutdown()
    later = reports.seen[1:]
    wall = sum(report.seconds["update"] for report in later)
    busy = sum(batches * (report.seconds["sampling"] + report.seconds["backward"]) for report in later)
    return 1 - busy / wall, sum(report.seconds["waiting"] for report in later) / wall, wall / len(later)


def _settings(directory: str, case: Case, updates: int, batches: int, seconds: float) -> dict[str, Any]:
    reward = {"name": "benchmarks.sleeping:Sleeping", "options": {"seconds": seconds}, "num_cpus": 0.1}
    return {
        "run": {"name": "idle", "storage": directory},
        "model": {"base": "zoo://emoji", "lora": {"rank": 4, "alpha": 4.0, "targets": ["to_q", "to_v"]}},
        "prompts": {"train": str(CONFIGS / "prompts/emoji_train.parquet")},
        "sampling": {"num_inference_steps": 4, "guidance_scale": 3.0},
        "rewards": {"terms": [reward | {"count": case.replicas}]},
        "samplers": {"count": 1, "batch_size": 2, "in_flight": case.in_flight},
        "training": {"updates": updates, "batch_size": 2 * batches, "checkpoint_every": updates},
        "evaluation": {
            "prompts": str(CONFIGS / "prompts/emoji_heldout.parquet"),
            "num_prompts": 2,
            "evaluators": [{"name": "jpeg_compressibility"}],
        },
    }


if __name__ == "__main__":
    main()

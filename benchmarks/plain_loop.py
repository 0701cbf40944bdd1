"""What an update of a distributed run takes beyond the same work in a loop of one process.

    OMP_NUM_THREADS=1 python -m benchmarks.plain_loop [--updates 8]

The demo's model and rewards, a LoRA of rank 8, 16 images an update in two batches; the run has one sampler, one trainer
and an actor for each reward. The loop (`Aligner`) makes the same updates before and after the run, for what else the
machine does. The first update, which also waits for everything to start, is not counted. Seconds by the clock of the
run may be fewer than the loop's, for its rewards and trainer work beside its sampler; CPU seconds are of all processes,
Ray's own among them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import yaml

from benchmarks.idle import CONFIGS
from benchmarks.start import cpu_seconds
from pipelines.align import align
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.models.load import load_pipeline
from sdo_ray.notebook.aligner import Aligner
from sdo_ray.prompts.read import read_prompts
from sdo_ray.training.decisions import Continue, Decision
from sdo_ray.training.records import UpdateReport

WEIGHTS = {"preference": 1.0, "alignment": 5.0}
SECTIONS: dict[str, Any] = {
    "sampling": {"num_inference_steps": 20, "guidance_scale": 3.0},
    "plan": {"name": "sdo", "options": {"K": 1}},
    "training": {"batch_size": 16, "learning_rate": 1.0e-3},
}
LORA = {"rank": 8, "alpha": 8.0, "targets": ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]}


class Clock:
    """An observer that notes when each update was made, and what the processes had taken by then."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        self.mark()
        return Continue()

    def mark(self) -> None:
        """Note the clock and CPU seconds of this process and all that it started."""
        self.marks.append((time.monotonic(), sum(cpu_seconds(os.getpid()).values())))

    def an_update(self) -> tuple[float, float]:
        """Seconds by the clock, and of CPU, of an update but the first."""
        (began, before), (ended, after), count = self.marks[0], self.marks[-1], len(self.marks) - 1
        return (ended - began) / count, (after - before) / count


def loop(updates: int) -> tuple[float, float]:
    """Seconds of an update of a plain loop."""
    prompts = read_prompts(str(CONFIGS / "prompts/emoji_train.parquet"))
    pipe = load_pipeline("zoo://emoji", "bfloat16")
    aligner = Aligner(pipe, {name: name for name in WEIGHTS}, weights=WEIGHTS, lora=LORA, **SECTIONS)
    clock = Clock()
    for _ in aligner.run(prompts, updates):
        clock.mark()
    return clock.an_update()


def run(updates: int) -> tuple[float, float]:
    """Seconds of an update of a distributed run."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "settings.yaml")
        path.write_text(yaml.safe_dump(_settings(directory, updates)))
        try:
            align(load_settings(AlignSettings, path), [clock])
        finally:
            ray.shutdown()
    return clock.an_update()


def _settings(directory: str, updates: int) -> dict[str, Any]:
    return SECTIONS | {
        "run": {"name": "run", "storage": directory},
        "model": {"base": "zoo://emoji", "dtype": "bfloat16", "lora": LORA},
        "prompts": {"train": str(CONFIGS / "prompts/emoji_train.parquet")},
        "rewards": {"terms": [{"name": name, "weight": weight, "num_cpus": 0.1} for name, weight in WEIGHTS.items()]},
        "samplers": {"count": 1, "batch_size": 8},
        "training": SECTIONS["training"] | {"updates": updates, "checkpoint_every": updates},
        "evaluation": {
            "prompts": str(CONFIGS / "prompts/emoji_heldout.parquet"),
            "num_prompts": 2,
            "evaluators": [{"name": "jpeg_compressibility"}],
        },
        "tracking": {"preview_prompts": []},
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=8)
    print("| | seconds an update | CPU seconds |\n|---|---|---|")
    updates = parser.parse_args().updates
    for name, measure in (("a loop of one process", loop), ("`sdo align`", run), ("the loop again", loop)):
        wall, cpu = measure(updates)
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |", flush=True)


if __name__ == "__main__":
    main()

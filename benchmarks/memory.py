"""Peak memory and time of one update, with the kept graph retained and in two phases.

    python -m benchmarks.memory [--model sdxl] [--device cuda] [--dtype bfloat16] [--steps 20] [--batch 1] [--rounds 3]

The models are those of `benchmarks.models`: random weights at the published sizes, with `--size tiny` the same classes
in miniature. The variants take turns in every round, so that whatever else the machine does hits all of them:

    plain                    the pipeline call
    retain                   one update of `sdo`, K = 1: sampling, a gradient at the images, the backward pass; the kept
                             step's and the decoder's activations are held from one to the other
    retain, blocks           the same with block checkpointing of denoiser and decoder
    recompute                the same in two phases
    recompute, blocks        likewise

Columns, medians of the rounds: seconds of sampling and of the backward pass (of the process's CPU time where there is
no GPU), and both together as a ratio to the plain call of the same round, with quartiles; the peak of memory in each,
and what is held between them while a batch waits for its rewards, in MiB above the weights: on CUDA what torch has
allocated, else the tensors that are alive, counted in an update of its own. One round before them is not counted. A
variant that runs out of memory says so. Needs torch, diffusers, peft and pydantic; no Ray.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.models import MODELS, BenchmarkModel, load_model
from sdo_ray.backprop import BackpropPlan, sampler_plan
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.rollout.objective import Cotangents, backpropagate
from sdo_ray.rollout.sampling import noise, sample
from sdo_ray.rollout.settings import KeptGraph
from sdo_ray.sizing.alive import Alive

MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """One update of one variant: seconds, and bytes above the weights."""

    sampling: float
    backward: float
    sampling_peak: int
    waiting: int
    backward_peak: int

    @property
    def seconds(self) -> float:
        """Of the update."""
        return self.sampling + self.backward


class Meter:
    """Seconds by the clock and bytes allocated on CUDA; seconds of CPU time without, and bytes if `counted`."""

    def __init__(self, counted: Alive | None = None) -> None:
        self._cuda, self._counted = torch.cuda.is_available(), counted

    def seconds(self) -> float:
        """Now."""
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter() if self._cuda else time.process_time()

    def held(self) -> int:
        """Bytes, now."""
        return torch.cuda.memory_allocated() if self._cuda else self._counted.now if self._counted else 0

    def take_peak(self) -> int:
        """The most bytes since this was asked before."""
        if self._cuda:
            most = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            return most
        if self._counted is None:
            return 0
        most, self._counted.most = self._counted.most, self._counted.now
        return most


@contextmanager
def checkpointed_blocks(model: BenchmarkModel) -> Iterator[None]:
    """Denoiser and decoder with diffusers' gradient checkpointing."""
    parts = [*find_denoisers(model.pipeline).values(), model.pipeline.vae]
    for part in parts:
        part.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for part in parts:
            part.disable_gradient_checkpointing()


def update(
    model: BenchmarkModel, kept_graph: KeptGraph | None, given: argparse.Namespace, i: int, meter: Meter
) -> Measured:
    """One update, or without `kept_graph` the plain call."""
    denoisers, steps = find_denoisers(model.pipeline), given.steps
    plan = BackpropPlan("plain", steps)
    if kept_graph is not None:
        draws = torch.Generator().manual_seed(i)
        plan = sampler_plan(model.pipeline.scheduler, steps, "sdo", generator=draws)
    call = model.call(given.batch) | {"num_inference_steps": steps, "guidance_scale": given.guidance}
    before, _, began = meter.held(), meter.take_peak(), meter.seconds()
    trajectory = sample(model.pipeline, call, noise(i, range(given.batch)), plan, kept_graph=kept_graph or "retain")
    sampled, sampling_peak, waiting = meter.seconds(), meter.take_peak(), meter.held()
    resumed = meter.seconds()
    if kept_graph is not None:
        v = Cotangents(torch.ones_like(trajectory.samples))
        backpropagate(trajectory, v, trained_parameters(denoisers), denoisers)
    seconds = sampled - began, meter.seconds() - resumed
    return Measured(*seconds, sampling_peak - before, waiting - before, meter.take_peak() - before)


VARIANTS: dict[str, tuple[KeptGraph | None, bool]] = {
    "plain": (None, False),
    "retain": ("retain", False),
    "retain, blocks": ("retain", True),
    "recompute": ("recompute", False),
    "recompute, blocks": ("recompute", True),
}
"""Name -> what `kept_graph` is, and whether blocks are checkpointed."""


def variant(model: BenchmarkModel, name: str, given: argparse.Namespace, i: int, meter: Meter) -> Measured:
    """One update of a variant."""
    kept_graph, blocks = VARIANTS[name]
    with checkpointed_blocks(model) if blocks else nullcontext():
        return update(model, kept_graph, given, i, meter)


def measure(model: BenchmarkModel, given: argparse.Namespace) -> dict[str, list[Measured] | None]:
    """Every variant in every round; None for one that ran out of memory."""
    found: dict[str, list[Measured] | None] = {name: [] for name in VARIANTS}
    for i in range(given.rounds + 1):
        for name, measured in found.items():
            if measured is None:
                continue
            try:
                one = variant(model, name, given, i, Meter())
            except torch.OutOfMemoryError:
                found[name] = None
                continue
            if i:
                measured.append(one)
    return found


def count(model: BenchmarkModel, given: argparse.Namespace) -> dict[str, Measured]:
    """Every variant's memory where no allocator tells it."""
    counted = {}
    for name in VARIANTS:
        with Alive() as alive:
            counted[name] = variant(model, name, given, 0, Meter(alive))
    return counted


def as_table(found: dict[str, list[Measured] | None], counted: dict[str, Measured]) -> str:
    """Markdown."""
    lines = [
        "| variant | sampling, s | backward, s | update / plain | sampling: peak MiB | waiting: MiB | backward: peak |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = found["plain"] or []
    for name, measured in found.items():
        if measured is None:
            lines.append(f"| {name} | out of memory | | | | | |")
            continue
        seconds = [statistics.median(getattr(one, field) for one in measured) for field in ("sampling", "backward")]
        ratios = [one.seconds / other.seconds for one, other in zip(measured, plain, strict=False)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3 or [math.nan] * 3
        memory = [counted[name]] if name in counted else measured
        sizes = [
            statistics.median(getattr(one, field) for one in memory) / MIB
            for field in ("sampling_peak", "waiting", "backward_peak")
        ]
        cells = [name, *(f"{s:.2f}" for s in seconds), f"{middle:.2f} ({low:.2f} .. {high:.2f})"]
        lines.append("| " + " | ".join([*cells, *(f"{size:.1f}" for size in sizes)]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="emoji")
    parser.add_argument("--size", choices=("published", "tiny"), default="published")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=20, help="N")
    parser.add_argument("--batch", type=int, default=1, help="images of an update")
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--rank", type=int, default=8, help="of the LoRA")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model: Any = load_model(
        given.model, rank=given.rank, dtype=given.dtype, device=given.device, tiny=given.size == "tiny"
    )
    what = {name: getattr(given, name) for name in ("model", "size", "dtype", "steps", "batch", "guidance", "rounds")}
    card = f", {torch.cuda.get_device_name()}" if given.device == "cuda" else ""
    print(", ".join(f"{name} {value}" for name, value in what.items()) + f", on {given.device}{card}")
    print(as_table(measure(model, given), {} if given.device == "cuda" else count(model, given)))


if __name__ == "__main__":
    main()

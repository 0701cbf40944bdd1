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

Columns, medians of the rounds: seconds of sampling and of the backward pass; on CUDA the peak of allocated memory in
each, and what is held between them while a batch waits for its rewards, all in GiB above the weights. One round before
them is not counted. A variant that runs out of memory says so. Needs torch, diffusers, peft and pydantic; no Ray.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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

GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """One update of one variant; seconds, and bytes above the weights, 0 without CUDA."""

    sampling: float
    backward: float
    sampling_peak: int
    waiting: int
    backward_peak: int


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


def update(model: BenchmarkModel, kept_graph: KeptGraph | None, given: argparse.Namespace, i: int) -> Measured:
    """One update, or without `kept_graph` the plain call."""
    denoisers = find_denoisers(model.pipeline)
    trained = trained_parameters(denoisers)
    steps = given.steps
    plan = BackpropPlan("plain", steps)
    if kept_graph is not None:
        draws = torch.Generator().manual_seed(i)
        plan = sampler_plan(model.pipeline.scheduler, steps, "sdo", generator=draws)
    call = model.call(given.batch) | {"num_inference_steps": steps, "guidance_scale": given.guidance}
    before = allocated()
    reset_peak()
    began = time.perf_counter()
    trajectory = sample(model.pipeline, call, noise(i, range(given.batch)), plan, kept_graph=kept_graph or "retain")
    synchronize()
    sampled, sampling_peak, waiting = time.perf_counter(), peak(), allocated()
    reset_peak()
    resumed = time.perf_counter()
    if kept_graph is not None:
        backpropagate(trajectory, Cotangents(torch.ones_like(trajectory.samples)), trained, denoisers)
    synchronize()
    seconds = sampled - began, time.perf_counter() - resumed
    return Measured(*seconds, sampling_peak - before, waiting - before, peak() - before)


VARIANTS: dict[str, tuple[KeptGraph | None, bool]] = {
    "plain": (None, False),
    "retain": ("retain", False),
    "retain, blocks": ("retain", True),
    "recompute": ("recompute", False),
    "recompute, blocks": ("recompute", True),
}
"""Name -> what `kept_graph` is, and whether blocks are checkpointed."""


def measure(model: BenchmarkModel, given: argparse.Namespace) -> dict[str, list[Measured] | None]:
    """Every variant in every round; None for one that ran out of memory."""
    found: dict[str, list[Measured] | None] = {name: [] for name in VARIANTS}
    for i in range(given.rounds + 1):
        for name, (kept_graph, blocks) in VARIANTS.items():
            measured = found[name]
            if measured is None:
                continue
            try:
                with ExitStack() as stack:
                    if blocks:
                        stack.enter_context(checkpointed_blocks(model))
                    one = update(model, kept_graph, given, i)
            except torch.OutOfMemoryError:
                found[name] = None
                continue
            if i:
                measured.append(one)
    return found


def as_table(found: dict[str, list[Measured] | None]) -> str:
    """Markdown."""
    lines = [
        "| variant | sampling, s | backward, s | sampling, peak GiB | waiting, GiB | backward, peak GiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, measured in found.items():
        if measured is None:
            lines.append(f"| {name} | out of memory | | | | |")
            continue

        def median(field: str, values: list[Measured] = measured) -> float:
            return statistics.median(getattr(one, field) for one in values)

        seconds = [f"{median(field):.2f}" for field in ("sampling", "backward")]
        sizes = [f"{median(field) / GIB:.2f}" for field in ("sampling_peak", "waiting", "backward_peak")]
        lines.append("| " + " | ".join([name, *seconds, *sizes]) + " |")
    return "\n".join(lines)


def allocated() -> int:
    """Bytes on the device."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def peak() -> int:
    """The most of them since `reset_peak`."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def reset_peak() -> None:
    """Begin to look for a peak."""
    synchronize()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def synchronize() -> None:
    """Wait for what the device was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


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
    card = f", {torch.cuda.get_device_name()}, {allocated() / GIB:.2f} GiB of weights" if allocated() else ""
    print(", ".join(f"{name} {value}" for name, value in what.items()) + f", on {given.device}{card}")
    print(as_table(measure(model, given)))


if __name__ == "__main__":
    main()

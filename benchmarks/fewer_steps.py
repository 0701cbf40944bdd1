"""Samplers of fewer exact steps, beside held steps: how far their images and their gradients are from those of N steps.

    python -m benchmarks.fewer_steps [--steps 20] [--every 2 3] [--batch 2] [--rounds 3]

On the embedded model with the demo's LoRA and rewards, as `benchmarks.cheap_steps`, without times. The model's sampler
is DDIM with N steps; the others make one in `--every` of its time steps: DDIM, DPM-Solver++ 2M, UniPC, each also
with DualFast's correction, whose constant is the one of `CONSTANTS` that does best on prompts of their own, and a
sampler whose coefficients are fitted on those prompts to the latents of the N steps (OLSS). Columns:

    computed        steps at which the denoiser runs
    N steps, 100    relative distance of the final latents from those of N steps, and of 100
    cosine, norm    the adapter's gradient compared with that of N steps; the kept step is the one that stands for k
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.cheap_updates import GUIDANCE, Bench, Fewer
from benchmarks.linear_solvers import Fitting, LinearSolver, ddim, dpm_solver, dual_fast, uni_pc
from sdo_ray.backprop import StepRunner

FITTED_ON = (
    "a blue heart",
    "a grinning face",
    "a dog face",
    "a red apple",
    "a yellow bus",
    "a hamburger",
    "a tree",
    "an umbrella",
)
CONSTANTS = (-0.1, -0.05, 0.05, 0.1)
SOLVERS = {"DDIM": ddim, "DPM-Solver++ 2M": dpm_solver, "UniPC": uni_pc}
MANY = 100
Numbers = dict[str, dict[str, float]]
"""Way -> what is measured, by name."""


class Trajectories:
    """What samplers make of the prompts that are fitted on.

    Args:
        bench: the model, which samples with N steps.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.exact = self.of(bench.scheduler, bench.times())

    def of(self, scheduler: Any, times: Sequence[int]) -> torch.Tensor:
        """Latents after each step, [n, B, C, h, w]."""
        made, pipe = list[torch.Tensor](), self._bench.pipe

        def keep(_pipe: Any, _step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
            made.append(given["latents"].clone())
            return {}

        steps = {"num_inference_steps": len(times)} if scheduler is self._bench.scheduler else {"timesteps": times}
        pipe.scheduler = scheduler
        try:
            pipe(
                prompt=list(FITTED_ON),
                guidance_scale=GUIDANCE,
                generator=torch.Generator().manual_seed(1_000_000),
                output_type="latent",
                callback_on_step_end=keep,
                **steps,
            )
        finally:
            pipe.scheduler = self._bench.scheduler
        return torch.stack(made)


def few_steps(bench: Bench, known: Trajectories, every: int) -> dict[str, Fewer]:
    """Name -> sampler of one in `every` of the time steps."""
    scheduler, times = bench.scheduler, bench.times(every)
    made, targets = (
        dict[str, torch.Tensor](),
        known.exact[[min(i + every, bench.steps) - 1 for i in range(0, bench.steps, every)]],
    )
    for name, coefficients in SOLVERS.items():
        made[name] = rows = coefficients(scheduler, times)
        corrected = {c: dual_fast(rows, c) for c in CONSTANTS}
        off = {
            c: float((known.of(LinearSolver.of(scheduler, times, those), times)[-1] - targets[-1]).norm())
            for c, those in corrected.items()
        }
        c = min(off, key=lambda c: off[c])
        made[f"{name}, corrected by {c}"] = corrected[c]
    fitting = Fitting.of(scheduler, times)
    fitting.targets = targets
    known.of(fitting, times)
    made["fitted"] = fitting.rows
    return {
        f"{name}, {len(times)} steps": Fewer(LinearSolver.of(scheduler, times, rows), times)
        for name, rows in made.items()
    }


def measure(bench: Bench, ways: Mapping[str, Fewer | StepRunner | None], seed: int, k: int) -> Numbers:
    """One round: every way once, with the same prompts, noise and kept step."""
    exact = bench.update(seed, k, None)
    many = bench.final_latents(seed, MANY)
    told: Numbers = {}
    for name, way in ways.items():
        update = exact if way is None else bench.update(seed, k, way)
        told[name] = {
            "exact": _distance(update.latents, exact.latents),
            "many": _distance(update.latents, many),
            "cosine": float(torch.nn.functional.cosine_similarity(update.gradient, exact.gradient, dim=0)),
            "norm": float(update.gradient.norm() / exact.gradient.norm()),
        }
    return told


def table(rounds: Sequence[Numbers], computed: Mapping[str, int], steps: int) -> str:
    """Markdown: means over the rounds, and the cosine's range."""
    lines = [f"| sampler | computed | {steps} steps | {MANY} | cosine | norm |", "|---" * 6 + "|"]
    for name, count in computed.items():
        mean = {key: statistics.mean(told[name][key] for told in rounds) for key in rounds[0][name]}
        cosines = [told[name]["cosine"] for told in rounds]
        cosine = f"{mean['cosine']:.2f} ({min(cosines):.2f} .. {max(cosines):.2f})"
        lines.append(f"| {name} | {count} | {mean['exact']:.3f} | {mean['many']:.3f} | {cosine} | {mean['norm']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fewer_steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=20, help="N (default: %(default)s)")
    parser.add_argument("--every", type=int, nargs="+", default=[2, 3], help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="images of an update (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    given = parser.parse_args()
    bench = Bench(given.steps, given.batch, "float32")
    known = Trajectories(bench)
    ways: dict[str, Fewer | StepRunner | None] = {"DDIM, the model's own": None}
    computed = {"DDIM, the model's own": given.steps}
    for every in given.every:
        ways[f"`taylor`, every {every}"] = bench.runner({"cache": {"name": "taylor", "every": every}})
        computed[f"`taylor`, every {every}"] = len({*range(0, given.steps, every), given.steps - 1})
        fewer = few_steps(bench, known, every)
        ways |= fewer
        computed |= {name: len(way.times) for name, way in fewer.items()}
    rounds = []
    for seed in range(given.rounds):
        k = (2 * seed + 1) * given.steps // (2 * given.rounds)
        rounds.append(measure(bench, ways, seed, k))
        print(f"{seed + 1} of {given.rounds} rounds, k = {k}\n\n{table(rounds, computed, given.steps)}\n", flush=True)


def _distance(z: torch.Tensor, exact: torch.Tensor) -> float:
    return float((z - exact).norm() / exact.norm())


if __name__ == "__main__":
    main()

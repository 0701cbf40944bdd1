"""What an update costs with cheap steps, and how far its gradient is from the exact one; beside fewer steps.

    python benchmarks/cheap_steps.py [--steps 20] [--batch 8] [--rounds 4] [--only NAME ...]

On the embedded model in float32 with the demo's LoRA, everything in one process; in every round all ways have the same
prompts, noise, kept step and adapter, and take turns in a drawn order, so that whatever else the machine does hits all
of them. Time is CPU time, of sampling, decoding and the backward pass from the images (the rewards' own apart), divided
by that of the plain call of the same round, and by that of the model in bfloat16. The gradient is that of the demo's
rewards at the adapter.

    plain     pipeline(...), images decoded
    others    one update with K = 1; see WAYS, and RIVALS for fewer steps of DPM-Solver++ 2M, exact each
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler

from rewards.alignment import Alignment
from rewards.preference import Preference
from sdo_ray.backprop import StepRunner, differentiable_sample, make_plan
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.trained.lora import LoraSettings, attach
from sdo_ray.rollout.preparation import runner_of
from sdo_ray.rollout.settings import SamplingSettings

PROMPTS = (
    "a red heart",
    "a yellow star",
    "a cat face",
    "a green apple",
    "a blue car",
    "a slice of pizza",
    "a dog",
    "a cup",
)
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "ff.net.0.proj", "ff.net.2"]
GUIDANCE = 3.0

WAYS: dict[str, dict[str, Any]] = {
    "exact": {},
    "copy of the same type": {"fast_copy": {}},
    "bfloat16 copy": {"fast_copy": "bfloat16"},
    "taylor, every 2": {"cache": {"name": "taylor", "every": 2}},
    "taylor, every 3": {"cache": {"name": "taylor", "every": 3}},
    "taylor, every 2, bfloat16 copy": {"cache": {"name": "taylor", "every": 2}, "fast_copy": "bfloat16"},
    "taylor, every 3, bfloat16 copy": {"cache": {"name": "taylor", "every": 3}, "fast_copy": "bfloat16"},
    "taylor, every 4, bfloat16 copy": {"cache": {"name": "taylor", "every": 4}, "fast_copy": "bfloat16"},
    "taylor, every 2, none at the end, bfloat16 copy": {
        "cache": {"name": "taylor", "every": 2, "last": 0},
        "fast_copy": "bfloat16",
    },
    "cg-taylor, every 4": {"cache": {"name": "cg-taylor", "every": 4}},
    "guidance, every 2": {"cache": {"name": "guidance", "every": 2}},
    "deepcache, every 3": {"cache": {"name": "deepcache", "every": 3}},
    "deepcache, every 3, bfloat16 copy": {"cache": {"name": "deepcache", "every": 3}, "fast_copy": "bfloat16"},
    "faster-diffusion, every 2": {"cache": {"name": "faster-diffusion", "every": 2}},
}
RIVALS = {"DPM++ 2M, every 2nd time step": 2, "DPM++ 2M, every 3rd time step": 3}
"""Name -> how many of the N time steps one of its own stands for."""


PLAIN = {"plain": False, "plain in bfloat16": True}
"""What is divided by: name -> whether it is the model in half precision."""


@dataclass
class Row:
    """What one way came to, a number a round."""

    seconds: list[float] = field(default_factory=list)
    latents: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)


class Bench:
    """The model, and the rewards of the demo.

    Args:
        steps: N.
        batch: images of an update.
    """

    def __init__(self, steps: int, batch: int) -> None:
        self.steps = steps
        self.pipe: Any = load_pipeline("zoo://emoji")
        trained = attach(self.pipe.components, LoraSettings(rank=8, alpha=8.0, targets=LAYERS))
        self.half: Any = load_pipeline("zoo://emoji", "bfloat16")
        self.parameters = list(trained_parameters(trained).values())
        torch.manual_seed(0)
        for p in self.parameters:
            torch.nn.init.normal_(p, std=0.02)
        self.prompts = [PROMPTS[i % len(PROMPTS)] for i in range(batch)]
        self.rewards = ((1.0, Preference()), (5.0, Alignment()))
        self.scheduler = self.pipe.scheduler

    def runner(self, way: dict[str, Any]) -> StepRunner | None:
        """What runs the steps without a graph."""
        return runner_of(self.pipe, SamplingSettings.model_validate({"num_inference_steps": self.steps, **way}))

    def plain(self, seed: int, half: bool = False) -> float:
        """CPU seconds of the plain call; `half`, of a model in bfloat16 without an adapter, which is the cheapest."""
        began = time.process_time()
        (self.half if half else self.pipe)(output_type="pt", **self._call(seed))
        return time.process_time() - began

    def update(self, seed: int, k: int, runner: StepRunner | None, every: int | None = None) -> tuple[float, Any, Any]:
        """One update: CPU seconds, final latents, and the gradient as one vector.

        Args:
            seed: of the noise.
            k: the kept step, of N.
            runner: of the other steps.
            every: if given, DPM-Solver++ 2M makes one step of so many, and keeps the one that stands for k.
        """
        call, steps = self._call(seed), self.steps
        if every is not None:
            self.scheduler.set_timesteps(steps)
            times = self.scheduler.timesteps[::every].tolist()
            call |= {"timesteps": times, "num_inference_steps": None}
            self.pipe.scheduler = DPMSolverMultistepScheduler.from_config(self.scheduler.config)
            steps, k = len(times), k // every
        plan, latents = make_plan("sdo", steps, draw="fixed", at=[k]), []
        decoder = self.pipe.vae.decode

        def decode(z: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            latents.append(z.detach())
            return decoder(z, *args, **kwargs)

        vars(self.pipe.vae)["decode"] = decode
        try:
            began = time.process_time()
            images = differentiable_sample(self.pipe, plan, runner=runner, **call)
            seconds = time.process_time() - began
        finally:
            del vars(self.pipe.vae)["decode"]
            self.pipe.scheduler = self.scheduler
        cotangent = self._cotangent(images)
        began = time.process_time()
        gradients = torch.autograd.grad(images, self.parameters, cotangent)
        seconds += time.process_time() - began
        return seconds, latents[0], torch.cat([g.flatten() for g in gradients])

    def _cotangent(self, images: torch.Tensor) -> torch.Tensor:
        seen = images.detach().requires_grad_()
        score = torch.stack([weight * reward(seen, self.prompts).sum() for weight, reward in self.rewards]).sum()
        return torch.autograd.grad(score, seen)[0]

    def _call(self, seed: int) -> dict[str, Any]:
        return {
            "prompt": self.prompts,
            "guidance_scale": GUIDANCE,
            "num_inference_steps": self.steps,
            "generator": torch.Generator().manual_seed(seed),
        }


def measure(bench: Bench, rounds: int, only: list[str] | None) -> dict[str, Row]:
    """All ways in all rounds; one round before them is not counted for time."""
    names = [name for name in (*WAYS, *RIVALS) if not only or name in only or name == "exact"]
    runners = {name: bench.runner(WAYS[name]) for name in names if name in WAYS}
    rows = {name: Row() for name in (*PLAIN, *names)}
    draw = random.Random(0)
    for half in PLAIN.values():
        bench.plain(0, half)
    for seed in range(rounds):
        # A step of each part of the trajectory in turn.
        k = int((seed + draw.random()) / rounds * bench.steps)
        with torch.no_grad():
            bench.parameters[0].add_(0.0)  # written to: copies have to follow, as they do after every update
        made: dict[str, Any] = {}
        runs: list[tuple[str, Callable[[], Any]]] = [
            (name, partial(_timed, bench, seed, half)) for name, half in PLAIN.items()
        ]
        runs += [(name, partial(bench.update, seed, k, runner)) for name, runner in runners.items()]
        runs += [(name, partial(bench.update, seed, k, None, n)) for name, n in RIVALS.items() if name in names]
        draw.shuffle(runs)
        for name, run in runs:
            made[name] = run()
        _, z, g = made["exact"]
        for name, (seconds, *rest) in made.items():
            rows[name].seconds.append(seconds)
            if rest:
                rows[name].latents.append(float((rest[0] - z).norm() / z.norm()))
                rows[name].cosine.append(float(torch.nn.functional.cosine_similarity(rest[1], g, dim=0)))
                rows[name].norm.append(float(rest[1].norm() / g.norm()))
        print(f"round {seed + 1} of {rounds}, k = {k}", flush=True)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="N")
    parser.add_argument("--batch", type=int, default=8, help="images per update")
    parser.add_argument("--rounds", type=int, default=4, help="rounds, each with every way once")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--only", nargs="*", help="these ways alone, beside `exact`")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(Bench(arguments.steps, arguments.batch), arguments.rounds, arguments.only)
    print(f"\nN = {arguments.steps}, batch {arguments.batch}, {arguments.rounds} rounds\n")
    print("| steps without a graph | update / plain call | / in bfloat16 | latents | cosine | norm |")
    print("|---|---|---|---|---|---|")
    plain = [rows.pop(name).seconds for name in PLAIN]
    for name, row in rows.items():
        ratios = [_range([s / p for s, p in zip(row.seconds, base, strict=True)]) for base in plain]
        told = [_mean(row.latents, 3), _range(row.cosine), _mean(row.norm, 2)]
        print(f"| {name} | {' | '.join([*ratios, *told])} |")
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}")


def _timed(bench: Bench, seed: int, half: bool) -> tuple[float]:
    return (bench.plain(seed, half),)


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} .. {max(values):.2f})"


def _mean(values: list[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f}"


if __name__ == "__main__":
    main()

"""What an update costs with cheap steps, and how far its gradient is from the exact one; beside fewer steps.

    python -m benchmarks.cheap_steps [--steps 20] [--batch 8] [--dtype float32] [--rounds 4] [--only NAME ...]
        [--schedule schedule.yaml] [--out ROUNDS.jsonl]

On the embedded model with the demo's LoRA, everything in one process; in every round all ways have the same prompts,
noise, kept step and adapter, and take turns in a drawn order, so that whatever else the machine does hits all of them.
Time is CPU time, of sampling, decoding and the backward pass from the images (the rewards' own apart). Operations are
those of matrix products and convolutions, counted once, the same on every machine. The gradient is that of the demo's
rewards at the adapter. Columns:

    / plain         update over the plain call, `pipeline(...)` with images decoded, of the same model and adapter
    / bare          update over the plain call of the model in bfloat16 without an adapter, the cheapest there is
    operations      those of the update over those of the plain call
    latents         relative distance of the final latents from those of exact steps
    cosine, norm    the adapter's gradient compared with that of exact steps, in the model's own type
    MB              memory of the copy's weights

A round is a line of `--out`; those that are there are not made again, so that a command that was stopped goes on.
`--schedule` adds what `sdo schedule` found.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.cheap_updates import Bench, Operations, Rival
from sdo_ray.backprop import StepRunner
from sdo_ray.cheap_steps.choose import copies_of

COPY = {"fast_copy": "bfloat16"}
ROUNDED: dict[str, dict[str, Any]] = {
    "int8 copy": {"quantize": "int8"},
    "int4 copy": {"quantize": "int4"},
    "int4 copy, rank 16": {"quantize": "int4", "low_rank": 16},
    "int8-dynamic copy": {"quantize": "int8-dynamic"},
}
WAYS: dict[str, dict[str, Any] | Rival] = {
    "exact": {},
    "copy of the same type": {"fast_copy": {}},
    "bfloat16 copy": COPY,
    **{name: {"fast_copy": {"dtype": "bfloat16", **how}} for name, how in ROUNDED.items()},
    "taylor, every 2": {"cache": {"name": "taylor", "every": 2}},
    "taylor, every 3": {"cache": {"name": "taylor", "every": 3}},
    **{
        f"taylor, every {every}, bfloat16 copy": {"cache": {"name": "taylor", "every": every}, **COPY}
        for every in (2, 3, 4, 5)
    },
    "taylor, every 2, none at the end, bfloat16 copy": {"cache": {"name": "taylor", "every": 2, "last": 0}, **COPY},
    "cg-taylor, every 4": {"cache": {"name": "cg-taylor", "every": 4}},
    "guidance, every 2": {"cache": {"name": "guidance", "every": 2}},
    "deepcache, every 3": {"cache": {"name": "deepcache", "every": 3}},
    "deepcache, every 3, bfloat16 copy": {"cache": {"name": "deepcache", "every": 3}, **COPY},
    "faster-diffusion, every 2": {"cache": {"name": "faster-diffusion", "every": 2}},
    **{
        f"DPM++ 2M, one of {every} {steps}": Rival(every, own)
        for every in (2, 3)
        for own, steps in ((False, "time steps"), (True, "steps of its own"))
    },
}
"""Name -> settings of `sampling`, or fewer steps."""
PLAIN = {"plain": False, "bare": True}
"""What is divided by: name -> whether it is the model without an adapter, in bfloat16."""
Numbers = dict[str, dict[str, float]]
"""Way -> what is measured, by name."""


def measure(bench: Bench, ways: Mapping[str, StepRunner | Rival | None], seed: int, k: int) -> Numbers:
    """One round: every way once."""
    bench.touch()
    told: Numbers = {}
    made = {}
    names = [*PLAIN, *ways]
    random.Random(seed).shuffle(names)
    for name in names:
        if name in PLAIN:
            told[name] = {"seconds": bench.plain(seed, PLAIN[name])}
        else:
            made[name] = bench.update(seed, k, ways[name])
    z, g = made["exact"].latents, made["exact"].gradient
    for name, update in made.items():
        told[name] = {
            "seconds": update.seconds,
            "latents": float((update.latents - z).norm() / z.norm()),
            "cosine": float(torch.nn.functional.cosine_similarity(update.gradient, g, dim=0)),
            "norm": float(update.gradient.norm() / g.norm()),
        }
    return told


def operations(bench: Bench, ways: Mapping[str, StepRunner | Rival | None]) -> dict[str, float]:
    """Way -> its operations over those of the plain call."""
    works: dict[str, Callable[[], object]] = {"plain": partial(bench.plain, 0)}
    works |= {name: partial(bench.update, 0, bench.steps // 2, way) for name, way in ways.items()}
    counts = dict[str, int]()
    for name, work in works.items():
        with Operations() as counter:
            work()
        counts[name] = counter.total
    return {name: counts[name] / counts["plain"] for name in ways}


def megabytes(runner: StepRunner | Rival | None) -> str:
    """Of the weights of the copies that a runner has; "" without one."""
    copies = [] if isinstance(runner, Rival) else copies_of(runner)
    stored = [part for copy in copies for p in copy.parameters() for part in _stored(p)]
    return f"{sum(x.nbytes for x in stored) / 1e6:.1f}" if copies else ""


def table(rounds: Sequence[Numbers], counted: Mapping[str, float], sizes: Mapping[str, str]) -> str:
    """Markdown: medians (ranges) over the rounds that have a way, and means."""
    lines = ["| steps without a graph | / plain | / bare | operations | latents | cosine | norm | MB |"]
    lines.append("|---" * 8 + "|")
    for name, count in counted.items():
        those = [told for told in rounds if name in told]
        ratios = [_range([told[name]["seconds"] / told[base]["seconds"] for told in those]) for base in PLAIN]
        means = {key: statistics.mean(told[name][key] for told in those) for key in ("latents", "norm")}
        cosine = _range([told[name]["cosine"] for told in those])
        cells = [name, *ratios, f"{count:.2f}", f"{means['latents']:.3f}", cosine, f"{means['norm']:.2f}", sizes[name]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    task = {"steps": given.steps, "batch": given.batch, "dtype": given.dtype}
    ways = {name: way for name, way in WAYS.items() if not given.only or name in (*given.only, "exact")}
    if given.schedule:
        front = yaml.safe_load(Path(given.schedule).read_text())["front"]
        ways |= {
            f"found, {len(entry['cache']['steps'])} of {given.steps}": {"cache": entry["cache"], **COPY}
            for entry in front
        }
    bench = Bench(**task)
    made = {name: way if isinstance(way, Rival) else bench.runner(way) for name, way in ways.items()}
    counted = operations(bench, made)  # the first run of each way is not timed
    out = Path(given.out) if given.out else None
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out and out.exists() else []
    rounds = [line["made"] for line in lines if line["task"] == task]
    draw = random.Random(0)
    for seed in range(given.rounds):
        # A step of each part of the trajectory in turn.
        k = int((seed + draw.random()) / given.rounds * given.steps)
        if any(line["task"] == task and line["seed"] == seed and ways.keys() <= line["made"].keys() for line in lines):
            continue
        rounds.append(measure(bench, made, seed, k))
        if out:
            with out.open("a") as file:
                file.write(json.dumps({"task": task, "seed": seed, "k": k, "made": rounds[-1]}) + "\n")
        print(f"round {seed + 1} of {given.rounds}, k = {k}, load {os.getloadavg()[0]:.1f}", flush=True)
    sizes = {name: megabytes(runner) for name, runner in made.items()}
    print(f"\nN = {given.steps}, batch {given.batch}, {given.dtype}, {len(rounds)} rounds\n")
    print(table(rounds, counted, sizes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cheap_steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--steps", type=int, default=20, help="N (default: %(default)s)")
    add("--batch", type=int, default=8, help="images of an update (default: %(default)s)")
    add("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the model (default: %(default)s)")
    add("--rounds", type=int, default=4, help="rounds, each with every way once (default: %(default)s)")
    add("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    add("--only", nargs="*", choices=WAYS, metavar="NAME", help="these ways alone, beside `exact`")
    add("--schedule", help="file of `sdo schedule` for this N, whose entries are measured too")
    add("--out", help="file for the rounds, JSON lines")
    return parser


def _stored(x: torch.Tensor) -> list[torch.Tensor]:
    """What a tensor keeps: itself, or the parts of one of torchao's."""
    if not hasattr(x, "__tensor_flatten__") or type(x) is torch.nn.Parameter:
        return [x]
    return [part for name in x.__tensor_flatten__()[0] for part in _stored(getattr(x, name))]


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} .. {max(values):.2f})"


if __name__ == "__main__":
    main()

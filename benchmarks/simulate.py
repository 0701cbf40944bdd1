"""Samples a second and idle shares of a run from 1 to 256 samplers, simulated: `python -m benchmarks.simulate`.

The simulation has the product's rules and nothing of its work:

    schedule   batches in order; those of update u leave once version u - max_policy_lag is published
    sampler    is given a batch when it holds fewer than `in_flight`, the one that holds the fewest first; works for
               one at a time, in the order in which they ask: sampling, then, once its rewards are in, the backward pass
    reward     `replicas` actors, first come, first served
    trainer    takes contributions of an update in order, each trainer every `trainers`-th, adds each up as it comes;
               all of them step together and publish the next version

`--check` makes real runs whose sampling and reward sleep, which takes no CPU, and holds the simulation against them:
times of the parts, and what is left over in an update, are those of the first run; the others are predicted. What is
left over is taken for the sampler's handing of its batches, and rewarding beyond the reward's sleep for travel.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import simpy


@dataclass(frozen=True)
class Times:
    """Seconds of the parts."""

    sampling: float
    """Of a batch."""
    reward: float
    """Of a batch, by one replica."""
    backward: float
    """Of a batch."""
    adding: float = 0.014
    """Of a contribution, by its trainer."""
    step: float = 0.6
    """Of an update: the step, publishing, and reading the new policy."""
    travel: float = 0.0
    """Of a batch, to its reward and back, which takes nobody's time."""
    handing: float = 0.0
    """Of a batch, that its sampler takes it, packs what it made and hands it on, computing nothing."""


@dataclass(frozen=True)
class Layout:
    """Who is there."""

    samplers: int
    batches: int
    """Of an update."""
    replicas: int = 1
    in_flight: int = 2
    trainers: int = 1
    max_policy_lag: int = 1


@dataclass(frozen=True)
class Predicted:
    """Means over some updates."""

    seconds: float
    """An update."""
    samplers_idle: float
    """Share of the samplers' time in which none of their batches is computed."""
    trainers_idle: float
    """Share of the trainers' time in which they wait for contributions."""


Process = Generator[simpy.Event, Any, None]


@dataclass
class _Run:
    times: Times
    layout: Layout
    updates: int
    env: simpy.Environment = field(default_factory=simpy.Environment)
    ends: list[float] = field(default_factory=list)
    """When each update was published."""
    computed: list[tuple[float, float]] = field(default_factory=list)
    """When each computation began and ended."""
    waited: list[float] = field(default_factory=list)
    """Of each update, by the trainer that waited longest."""

    def __post_init__(self) -> None:
        env, layout = self.env, self.layout
        self.rewards = simpy.Resource(env, layout.replicas)
        self.published = [env.event() for _ in range(self.updates + 1)]
        self.published[0].succeed()
        self.arrived = [[env.event() for _ in range(layout.batches)] for _ in range(self.updates)]
        self.places = simpy.Container(env, init=layout.samplers * layout.in_flight)
        self.samplers = [simpy.Resource(env) for _ in range(layout.samplers)]
        self.held = [0] * layout.samplers
        env.process(self.schedule())
        self.done = env.process(self.train())

    def schedule(self) -> Process:
        for update in range(self.updates):
            yield self.published[max(0, update - self.layout.max_policy_lag)]
            for batch in range(self.layout.batches):
                yield self.places.get(1)
                sampler = min(range(self.layout.samplers), key=self.held.__getitem__)
                self.held[sampler] += 1
                self.env.process(self.hold(sampler, self.arrived[update][batch]))

    def hold(self, sampler: int, arrived: simpy.Event) -> Process:
        """One of the batches that a sampler holds at a time."""
        yield from self.compute(self.samplers[sampler], self.times.sampling)
        with self.rewards.request() as turn:
            yield turn
            yield self.env.timeout(self.times.reward)
        yield self.env.timeout(self.times.travel)
        yield from self.compute(self.samplers[sampler], self.times.backward, self.times.handing)
        arrived.succeed()
        self.held[sampler] -= 1
        yield self.places.put(1)

    def compute(self, sampler: simpy.Resource, seconds: float, besides: float = 0.0) -> Process:
        with sampler.request() as turn:
            yield turn
            yield self.env.timeout(seconds)
            self.computed.append((self.env.now - seconds, self.env.now))
            yield self.env.timeout(besides)

    def train(self) -> Process:
        for update, arrived in enumerate(self.arrived):
            self.waited.append(0.0)
            parts = [arrived[rank :: self.layout.trainers] for rank in range(self.layout.trainers)]
            yield self.env.all_of([self.env.process(self.add_up(part, update)) for part in parts if part])
            yield self.env.timeout(self.times.step)
            self.published[update + 1].succeed()
            self.ends.append(self.env.now)

    def add_up(self, part: list[simpy.Event], update: int) -> Process:
        waited = 0.0
        for contribution in part:
            before = self.env.now
            yield contribution
            waited += self.env.now - before
            yield self.env.timeout(self.times.adding)
        self.waited[update] = max(self.waited[update], waited)


def simulate(times: Times, layout: Layout, updates: int = 24, skipped: tuple[int, int] = (8, 4)) -> Predicted:
    """Run it.

    Args:
        times: of the parts.
        layout: who is there.
        updates: of the run.
        skipped: so many of the first and of the last are not counted: the first also fill the samplers' hands, and
            the last leave them empty.
    """
    run = _Run(times, layout, updates)
    run.env.run(run.done)
    first, last = skipped[0] - 1, updates - 1 - skipped[1]
    start, end = run.ends[first], run.ends[last]
    worked = sum(max(0.0, min(ended, end) - max(began, start)) for began, ended in run.computed)
    wall = end - start
    return Predicted(
        wall / (last - first), 1 - worked / (layout.samplers * wall), sum(run.waited[first + 1 : last + 1]) / wall
    )


@dataclass(frozen=True)
class Published:
    """A model at its size, on one kind of GPU."""

    name: str
    images: int
    """A sampler batch."""
    times: Times


MODELS = (
    # One H200, bfloat16, one image, guidance, `recompute` with checkpointed blocks: benchmarks.memory.
    Published("SDXL, 1024 px, N = 20", 4, Times(4 * 2.36, 0.2, 4 * 0.99)),
    # 74.55e12 operations a step (benchmarks.sizes) at the 237e12 a second that SD 3.5 medium reached there, 28 steps
    # without a second half of guidance; the backward pass as that model's share of its sampling.
    Published("FLUX.1-dev, 1024 px, N = 28", 4, Times(4 * 28 * 74.55 / 237, 0.2, 4 * 28 * 74.55 / 237 * 0.31)),
    # 240 s on an RTX 4090 for 81 frames at 480p, N = 50 (its README), by the ratio of dense bfloat16 peaks, 165 : 989.
    Published("Wan 2.1 1.3B, 81 frames, N = 50", 1, Times(240 * 165 / 989, 1.0, 240 * 165 / 989 * 0.15)),
)
"""Where each number comes from stands above it; a reward of a CLIP network takes 0.2 s a batch, one of frames 1 s."""


def scaling() -> None:
    """Print what it says of `MODELS`."""
    print("| model | samplers | 4 batches each, lag 1 | lag 0 | lag 0, 1 in flight | 64 batches, lag 1 |")
    print("|---|---|---|---|---|---|")
    for model in MODELS:
        alone = 1 / (model.times.sampling + model.times.backward)
        for samplers in (1, 8, 64, 256):
            each = Layout(samplers, 4 * samplers, replicas=max(1, samplers // 8))
            kinds = (
                each,
                replace(each, max_policy_lag=0),
                replace(each, max_policy_lag=0, in_flight=1),
                replace(each, batches=64),
            )
            cells = []
            for layout in kinds:
                batches = layout.batches / simulate(model.times, layout).seconds
                cells.append(f"{batches * model.images:.3g} ({batches / alone / samplers:.0%})")
            print(f"| {model.name} | {samplers} | {' | '.join(cells)} |")


def check(layouts: list[Layout], updates: int) -> None:
    """Print real runs beside their simulation; the first gives the times."""
    from benchmarks.sleeping import SECONDS, measure

    times: Times | None = None
    print("| samplers | in flight | real, s an update | simulated | samplers idle, real | simulated |")
    print("|---|---|---|---|---|---|")
    for layout in layouts:
        with tempfile.TemporaryDirectory() as directory:
            real = measure(Path(directory), layout, updates)
        if times is None:
            travel = real.rewarding - SECONDS
            times = Times(real.sampling, SECONDS, real.backward, step=0.0, travel=travel)
            left = real.seconds - simulate(times, layout, updates, (1, 0)).seconds
            times = replace(times, handing=left / layout.batches)
        found = simulate(times, layout, updates, (1, 0))
        idle = 1 - layout.batches * (real.sampling + real.backward) / (layout.samplers * real.seconds)
        print(
            f"| {layout.samplers} | {layout.in_flight} | {real.seconds:.2f} | {found.seconds:.2f} "
            f"({found.seconds / real.seconds - 1:+.0%}) | {idle:.0%} | {found.samplers_idle:.0%} |",
            flush=True,
        )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="against real runs that sleep; minutes")
    parser.add_argument("--samplers", type=int, nargs="+", default=[1, 2, 4, 6], help="of those runs")
    parser.add_argument("--updates", type=int, default=5, help="of each of them")
    given = parser.parse_args()
    if given.check:
        check([Layout(samplers, 12, replicas=2) for samplers in given.samplers], given.updates)
    else:
        scaling()


if __name__ == "__main__":
    main()

"""An update beside one of TRL's AlignProp trainer, both on the embedded model, in turns, in one run.

    python -m venv /tmp/trl
    /tmp/trl/bin/pip install "trl==0.23.1" "transformers<5" "diffusers<0.37" "peft<0.18" torch
    python -m benchmarks.against_trl --trl /tmp/trl/bin/python [--steps 20] [--batch 8] [--guidance 5] [--rounds 5]

TRL 0.23 is the last that has this trainer; its environment is no dependency of this project. On both sides an update is
sampling, decoding, a reward that costs nothing, the backward pass, and clipping and AdamW on a LoRA of rank 4 of the
attention layers, in float32 on one thread. TRL keeps its last K steps; here `draft` keeps the same ones, and `sdo` one
drawn at random.

Columns: CPU seconds of an update and of the plain pipeline call in the same environment, medians of the rounds; and the
most memory that the tensors of an update take at one time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from benchmarks.models import BenchmarkModel
from benchmarks.tensor_memory import peak_bytes
from sdo_ray import zoo
from sdo_ray.backprop import make_plan, sampler_plan
from sdo_ray.models.checkpointing import checkpoint_blocks
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.trained.lora import LoraSettings, attach
from sdo_ray.rollout.objective import Cotangents, backpropagate
from sdo_ray.rollout.preparation import prepare
from sdo_ray.rollout.sampling import noise, sample
from sdo_ray.rollout.settings import KeptGraph, SamplerSettings, SamplingSettings


@dataclass
class Side:
    """One way to make an update, and what was measured of it."""

    plain: Callable[[], float]
    """Makes a plain call; CPU seconds."""
    update: Callable[[int], float]
    """Makes update number i; CPU seconds."""
    peak: Callable[[], int]
    """Makes an update; see `peak_bytes`."""
    plain_seconds: list[float] = field(default_factory=list)
    update_seconds: list[float] = field(default_factory=list)


def load(blocks: bool = False, channels_last: bool = False) -> BenchmarkModel:
    """The embedded model with AlignProp's LoRA; blocks checkpointed, or weights with the channels last, where asked."""
    pipeline = load_pipeline("zoo://emoji", "float32", "cpu")
    pipeline.set_progress_bar_config(disable=True)
    attach(pipeline.components, LoraSettings(rank=4, alpha=4.0))
    if blocks:
        checkpoint_blocks(pipeline.components.values())
    prepare(pipeline, SamplingSettings(), SamplerSettings(channels_last=channels_last))
    return BenchmarkModel(pipeline, lambda count: {"prompt": ["a red heart"] * count})


def ours(model: BenchmarkModel, plan_name: str, kept_graph: KeptGraph, given: argparse.Namespace) -> Side:
    """An update of the sampler and an optimizer's step."""
    denoisers = find_denoisers(model.pipeline)
    trained = trained_parameters(denoisers)
    parameters = list(trained.values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-4)
    call = model.call(given.batch) | {"num_inference_steps": given.steps, "guidance_scale": given.guidance}

    def plain() -> float:
        began = time.process_time()
        with torch.no_grad():
            model.pipeline(**call, output_type="pt")
        return time.process_time() - began

    def gradient(i: int) -> None:
        plan = (
            make_plan("draft", given.steps, K=given.last)
            if plan_name == "draft"
            else sampler_plan(model.pipeline.scheduler, given.steps, "sdo", generator=torch.Generator().manual_seed(i))
        )
        trajectory = sample(model.pipeline, call, noise(i, range(given.batch)), plan, kept_graph=kept_graph)
        v = torch.full_like(trajectory.samples, 1 / trajectory.samples[0].numel() / given.batch)
        found = backpropagate(trajectory, Cotangents(v), trained, denoisers)
        for name, parameter in trained.items():
            parameter.grad = found.parameters[name]

    def update(i: int) -> float:
        began = time.process_time()
        gradient(i)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    return Side(plain, update, lambda: peak_bytes(partial(update, 0)))


@contextmanager
def theirs(model: str, checkpoint: bool, given: argparse.Namespace) -> Iterator[Side]:
    """TRL's trainer in a process of its own."""
    options = ["--model", model, "--checkpoint", str(int(checkpoint))]
    for name in ("steps", "batch", "last", "guidance"):
        options += [f"--{name}", str(getattr(given, name))]
    process = subprocess.Popen(
        [given.trl, "-m", "benchmarks.trl_worker", *options],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if given.verbose else subprocess.DEVNULL,
        text=True,
    )

    def ask(word: str) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        print(word, file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("TRL's process ended; --verbose shows what it says")
        answer: float = json.loads(line)
        return answer

    try:
        yield Side(lambda: ask("plain"), lambda i: ask("update"), lambda: int(ask("peak")))
    finally:
        process.kill()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against_trl",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--trl", required=True, help="Python of an environment that has TRL")
    add("--steps", type=int, default=20, help="sampling steps N (default: %(default)s)")
    add("--batch", type=int, default=8, help="images of an update (default: %(default)s)")
    add("--last", type=int, default=1, help="K, the last steps that AlignProp keeps (default: %(default)s)")
    add(
        "--guidance",
        type=float,
        default=5.0,
        help="scale, over 1: without TRL fails (default: %(default)s)",
    )
    add("--rounds", type=int, default=5, help="one before them is not counted (default: %(default)s)")
    add("--verbose", action="store_true", help="show what TRL says")
    given = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        emoji = zoo.load("emoji")
        emoji.save_pretrained(directory)
        words = emoji.tokenizer.get_vocab()
        # The form that transformers of TRL's time reads.
        (Path(directory) / "tokenizer" / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)) + "\n")
        model, in_blocks = load(), load(blocks=True)
        last, last_in_blocks = load(channels_last=True), load(blocks=True, channels_last=True)
        sides = {
            "TRL, K": stack.enter_context(theirs(directory, True, given)),
            "TRL, K, no checkpoint": stack.enter_context(theirs(directory, False, given)),
            "draft, K, retain": ours(model, "draft", "retain", given),
            "draft, K, recompute": ours(model, "draft", "recompute", given),
            "sdo, retain": ours(model, "sdo", "retain", given),
            "sdo, retain, blocks": ours(in_blocks, "sdo", "retain", given),
            "sdo, recompute": ours(model, "sdo", "recompute", given),
            "sdo, retain, channels last": ours(last, "sdo", "retain", given),
            "sdo, retain, blocks, channels last": ours(last_in_blocks, "sdo", "retain", given),
        }
        for i in range(given.rounds + 1):
            for side in sides.values():
                seconds = side.plain(), side.update(i)
                if i:
                    side.plain_seconds.append(seconds[0])
                    side.update_seconds.append(seconds[1])
        print(f"N {given.steps}, batch {given.batch}, K {given.last}, guidance {given.guidance}, {given.rounds} rounds")
        print("| update | CPU s | plain call, CPU s | / TRL's plain call | peak, MB |\n|---|---|---|---|---|")
        first = sides["TRL, K"].plain_seconds
        for name, side in sides.items():
            ratio = statistics.median(a / b for a, b in zip(side.update_seconds, first, strict=True))
            cells = statistics.median(side.update_seconds), statistics.median(side.plain_seconds), ratio
            print(f"| {name} | " + " | ".join(f"{x:.2f}" for x in cells) + f" | {side.peak() / 1e6:.0f} |")


if __name__ == "__main__":
    main()

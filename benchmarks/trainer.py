"""What a sampler batch costs the trainers, with a LoRA of SDXL's size: 1,120 tensors, 23 million values.

    python -m benchmarks.trainer [--contributions 8] [--rounds 5] [--dtype float32]

One worker on one thread, ZeRO-2, CPU seconds: to read a contribution as it arrived and add it up; to make the update's
one step; to publish the new policy. Medians of the rounds.
"""

import argparse
import itertools
import os
import statistics
import time

import torch
import torch.distributed

from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.records import Contribution, Seconds
from sdo_ray.rollout.tensors import dump_tensors
from sdo_ray.training.engine import make_engine, make_step, policy_weights
from sdo_ray.training.modules import Policy
from sdo_ray.training.settings import TrainerSettings, TrainingSettings

RANK = 16
BLOCKS = {640: 10, 1280: 60}
"""Transformer blocks of SDXL's UNet by their width."""
TEXT = 2048
"""Width of what its cross-attentions read."""


def shapes() -> dict[str, tuple[int, int]]:
    """Of the two factors of each adapted layer: to_q, to_k, to_v and to_out.0 of both attentions of each block."""
    found: dict[str, tuple[int, int]] = {}
    for width, blocks in BLOCKS.items():
        for block in range(blocks):
            for attention, read in (("attn1", width), ("attn2", TEXT)):
                for layer, fan_in in (("to_q", width), ("to_k", read), ("to_v", read), ("to_out.0", width)):
                    name = f"unet.{width}.{block}.{attention}.{layer}"
                    found |= {f"{name}.lora_A.weight": (RANK, fan_in), f"{name}.lora_B.weight": (width, RANK)}
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contributions", type=int, default=8, help="sampler batches of an update")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32", help="what gradients travel as")
    given = parser.parse_args()
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29512"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    weights = {name: torch.randn(shape) / 100 for name, shape in shapes().items()}
    print(f"{len(weights)} tensors, {sum(w.numel() for w in weights.values()) / 1e6:.1f} M values")
    engine = make_engine(Policy(weights), TrainingSettings(), TrainerSettings(), given.contributions)
    gradient = Gradient.of({name: torch.randn_like(w) for name, w in weights.items()})
    sent = Contribution(0, 0, 0, 1, 0, {"a": [1.0]}, [1.0], {0: 1.0}, Seconds(0, 0, 0), gradient)
    arrived = [sent.to_arrow(given.dtype) for _ in range(given.contributions)]
    rows = []
    for _ in range(given.rounds):
        times = [time.process_time()]
        terms = engine.module.terms(each for table in arrived for each in Contribution.from_arrow(table))
        times.append(time.process_time())
        make_step(engine, terms, given.contributions, 1e-4)
        times.append(time.process_time())
        dump_tensors(policy_weights(engine))
        times.append(time.process_time())
        rows.append([end - start for start, end in itertools.pairwise(times)])
    read, step, publish = map(statistics.median, zip(*rows, strict=True))
    print(f"a contribution, read and added: {read / given.contributions:.3f} s of CPU")
    print(f"an update's step: {step:.2f} s; to publish it: {publish:.2f} s")
    print(f"an update of {given.contributions} contributions: {read + step + publish:.2f} s")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""What a trainer that holds the denoiser holds of each weight, by type and ZeRO stage, and how long an update takes.

    python -m benchmarks.trainer_memory [--workers 1 2] [--updates 3]

The embedded model's whole denoiser, two kept calls of a worker an update, one thread each. Bytes are those of all
tensors of the first worker while AdamW steps, over the denoiser's weights, without activations and DeepSpeed's buckets
for communication, whose size is fixed; beside them what `sdo plan` counts. Seconds are CPU seconds of the last update.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import tempfile
import time
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

from sdo_ray.models.denoisers import denoiser_skeletons
from sdo_ray.models.policy import initial_policy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.calls import ShippedCall
from sdo_ray.training.engine import make_engine, make_step
from sdo_ray.training.fitting import Load
from sdo_ray.training.modules import Denoisers
from sdo_ray.training.settings import TrainerSettings, TrainingSettings

BASE, TERMS = "zoo://emoji", 2
BUCKET = 10**9
"""Bytes from which on a tensor is one of DeepSpeed's buckets."""


def call() -> ShippedCall:
    """A kept step of four images."""
    [(name, unet)] = denoiser_skeletons(BASE).items()
    config: Any = unet.config
    size = (4, config.in_channels, config.sample_size, config.sample_size)
    given = {"encoder_hidden_states": torch.randn(4, 8, config.cross_attention_dim), "return_dict": False}
    return ShippedCall(name, (torch.randn(size), torch.tensor(500)), given, [torch.randn(size)])


def held() -> int:
    """Bytes of all tensors of this process, each storage once."""
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(size for size in storages.values() if size < BUCKET)


def work(rank: int, directory: str, trainers: TrainerSettings, updates: int) -> None:
    """One trainer of a group; the first prints a row."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(trainers.count),
        "DS_ACCELERATOR": "cpu",
    }
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/group", rank=rank, world_size=trainers.count
    )
    model = ModelSettings(base=BASE, train="full", dtype=trainers.dtype)
    training, policy, terms = TrainingSettings(backward="trainer"), initial_policy(model, 0), [[call()]] * TERMS
    weights = sum(tensor.numel() for tensor in policy.values())
    engine = make_engine(Denoisers(model, policy, trainers.dtype), training, trainers, TERMS)
    del policy
    found: list[float] = []

    def look(*_: Any) -> None:
        found.append(held() / weights)

    engine.optimizer.optimizer.register_step_pre_hook(look)
    for _ in range(updates):
        began = time.process_time()
        make_step(engine, terms, TERMS, 1e-6)
        seconds = time.process_time() - began
    counted = Load.of(weights, 0.0, training, trainers.model_copy(update={"num_gpus": 1})).device / weights
    if rank == 0:
        row = f"{trainers.zero_stage:>5} {trainers.count:>8} {trainers.dtype:>9}"
        print(f"{row} {found[-1]:>15.2f} {counted:>8.1f} {seconds:>8.2f}", flush=True)
    torch.distributed.destroy_process_group()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--updates", type=int, default=3)
    given = parser.parse_args()
    print("stage trainers      type bytes a weight  counted  seconds")
    for stage, workers, dtype in itertools.product(given.stages, given.workers, ("float32", "bfloat16")):
        trainers = TrainerSettings.model_validate({"zero_stage": stage, "count": workers, "dtype": dtype})
        with tempfile.TemporaryDirectory() as directory:
            torch.multiprocessing.spawn(work, (directory, trainers, given.updates), nprocs=workers)


if __name__ == "__main__":
    main()

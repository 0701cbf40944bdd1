"""Contributions to updates as samplers would send them, for trainers without samplers."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray.data
import torch

from rewards.pulls import Pull
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.records import Contribution, PromptBatch, Seconds
from sdo_ray.rollout.tensors import dump_tensors
from sdo_ray.rollout.watch import Watch
from sdo_ray.storage import RunDirectory
from sdo_ray.training.channel import Channel
from sdo_ray.training.settings import TrainerSettings, TrainingSettings
from sdo_ray.training.worker import WorkerConfig

WEIGHTS = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
"""Policy version 0."""

PER_UPDATE = 2


def contribution(update: int, part: int, reward: float = 1.0, preview: bytes | None = None) -> Contribution:
    """Part `part` of what arrives for an update: a gradient of its own, two samples with the mixed reward `reward`."""
    noise = torch.Generator().manual_seed(100 * update + part)
    gradient = {name: torch.randn(tensor.shape, generator=noise) for name, tensor in WEIGHTS.items()}
    rewards, first_row = [reward, reward], 2 * (PER_UPDATE * update + part)
    return Contribution(
        update,
        update,
        first_row,
        2,
        0,
        {"a": rewards},
        rewards,
        {0: 1.0},
        Seconds(1.0, 1.0, 1.0),
        gradient=Gradient.of(gradient),
        pulls={"a": Pull(2.0, 2 * reward, 2 * reward**2, 2.0, 10.0 + part)},
        preview=preview,
    )


def stream_of(rewards: Sequence[float], preview: bytes | None = None) -> Callable[[int], ray.data.Dataset]:
    """First update -> the contributions from there on, of as many updates as there are rewards.

    Args:
        rewards: the mixed reward of each update's samples.
        preview: comes with each update's first contribution.
    """

    def stream(start: int) -> ray.data.Dataset:
        made = [
            contribution(update, part, rewards[update], None if part else preview).to_arrow()
            for update in range(start, len(rewards))
            for part in range(PER_UPDATE)
        ]
        return ray.data.from_arrow(made)

    return stream


class ContributingSampler:
    """Takes its time, and answers a batch with the contribution that `stream_of` has in its place."""

    def __init__(self, config: Any, policies: Policies, reward_actors: Mapping[str, Any], watch: Watch) -> None:
        self._seconds = float(reward_actors["seconds"])
        self._watch = watch
        watch.stay_in_touch()

    def __call__(self, table: pa.Table) -> pa.Table:
        batch = PromptBatch.from_arrow(table)
        with self._watch.batch(batch):
            time.sleep(self._seconds)
            return contribution(batch.update, (batch.rows[0] // 2) % PER_UPDATE).to_arrow()


def worker_config(
    policies: Policies,
    channel: Channel,
    updates: int,
    every: int = 2,
    average: float = 0.0,
    run: RunDirectory | None = None,
    count: int = 1,
) -> WorkerConfig:
    """Of workers on a CPU, with no base model; without a run, its directory is one that nobody looks at."""
    run = run or RunDirectory(tempfile.mkdtemp(), "run")
    training = TrainingSettings(
        updates=updates, batch_size=2 * PER_UPDATE, checkpoint_every=every, learning_rate=0.01, average=average
    )
    trainers = TrainerSettings(count=count, num_cpus=0.5, max_failures=0)
    model = ModelSettings(base="none")
    return WorkerConfig(model, training, trainers, PER_UPDATE, ("a",), dump_tensors(WEIGHTS), policies, channel, run)

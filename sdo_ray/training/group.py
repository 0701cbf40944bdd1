"""The Ray Train group, seen from the driver: start it, and hear of every update."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray.data
import ray.train
from ray.train.torch import TorchTrainer

from sdo_ray.cluster import cause_of
from sdo_ray.sealed import Sealed
from sdo_ray.training import checkpoints
from sdo_ray.training.arriving import ROLLOUTS, Work, start_training
from sdo_ray.training.channel import Channel
from sdo_ray.training.listing import TRAIN, FromNewest, known, mend, newest
from sdo_ray.training.records import UpdateReport
from sdo_ray.training.worker import WorkerConfig, train_worker


class RunGivenUp(RuntimeError):
    """Trying again would fail again; the message is the cause."""


def train(config: WorkerConfig, stream: Callable[[int], ray.data.Dataset]) -> Iterator[UpdateReport]:
    """Train, and yield the report of every update as it is made.

    A worker that dies takes the group back to the newest checkpoint: the stream is made anew from there, and updates
    made again are not yielded again.

    Args:
        config: of the workers; a run with checkpoints goes on from the newest.
        stream: first update -> the contributions from there on.

    Raises:
        RunGivenUp: a model or reward raised an exception.
        ray.train.TrainingFailedError: the group failed more often than `trainers.max_failures`.
    """
    mend(config.run)
    config, trainers, run = _from_whole_ones(config), config.trainers, config.run
    options = ray.data.ExecutionOptions(preserve_order=True)
    trainer = TorchTrainer(
        start_training,
        train_loop_config=Work(channel=config.channel, train=Sealed.of(partial(train_worker, config))),
        # Ray Train's controller opens it, and so imports what it is made of: nothing of models.
        datasets={ROLLOUTS: FromNewest(stream, run, config.damaged)},
        dataset_config=ray.train.DataConfig(execution_options=options, enable_shard_locality=False),
        scaling_config=ray.train.ScalingConfig(
            num_workers=trainers.count,
            use_gpu=trainers.num_gpus > 0,
            resources_per_worker={"CPU": trainers.num_cpus} | ({"GPU": trainers.num_gpus} if trainers.num_gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=TRAIN,
            storage_path=run.path if not run.is_local else run.uri,
            storage_filesystem=None if run.is_local else run.filesystem,
            # The newest is kept besides.
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=checkpoints.KEPT - 1,
                checkpoint_score_attribute=checkpoints.SCORE,
                checkpoint_score_order="max",
            ),
            failure_config=ray.train.FailureConfig(max_failures=trainers.max_failures),
        ),
    )
    yield from _reports_while(trainer.fit, config.channel, newest(run, config.damaged) - 1)


def _reports_while(fit: Callable[[], Any], channel: Channel, last: int) -> Iterator[UpdateReport]:
    failure: list[BaseException] = []

    def run() -> None:
        try:
            fit()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="ray-train", daemon=True)
    thread.start()
    while True:
        running = thread.is_alive()
        report = channel.next_report(last, 1.0 if running else 0.0)
        if report is not None:
            last = report.update
            yield report
        elif (why := channel.failure()) is not None:
            details = RuntimeError(why)
            raise RunGivenUp(cause_of(details)) from details
        elif not running:
            break
    if failure:
        raise failure[0]


def _from_whole_ones(config: WorkerConfig) -> WorkerConfig:
    """Have the workers pass by checkpoints that are damaged, and say which these are."""
    damaged, whole, run = set[str](), None, config.run
    for update, checkpoint in known(run):
        if (why := checkpoints.why_not(run.name, update, checkpoint)) is None:
            whole = checkpoint
        else:
            damaged.add(Path(checkpoint.path).name)
            print(f"{run.name}: the checkpoint {checkpoint.path} of update {update} is not taken: {why}", flush=True)
    if damaged:
        before = "the first update" if whole is None else f"{whole.path}, which is whole"
        print(f"{run.name}: it goes on from {before}", flush=True)
    return replace(config, damaged=frozenset(damaged), whole=whole)

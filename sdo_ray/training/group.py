"""The Ray Train group, seen from the driver: start it, and hear of every update."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray
import ray.data
import ray.train
import torch
from ray.train.torch import TorchTrainer

from sdo_ray.storage import RunDirectory
from sdo_ray.training import checkpoints
from sdo_ray.training.policy_store import PolicyStore
from sdo_ray.training.records import UpdateReport
from sdo_ray.training.worker import ROLLOUTS, WorkerConfig, train_worker


class RunGivenUp(RuntimeError):
    """Trying again would fail again; the message is the cause."""


TRAIN = "train"
"""The subdirectory of a run that Ray Train keeps its checkpoints in."""


def start_policy_store(max_policy_lag: int) -> Any:
    """The store, as an actor on the driver's node; its death ends the run, which the same command then resumes."""
    return ray.remote(PolicyStore).options(num_cpus=0, max_concurrency=1000).remote(keep=max_policy_lag + 2)


def progress(run: RunDirectory) -> tuple[int, list[UpdateReport], dict[str, torch.Tensor] | None]:
    """Updates in the newest checkpoint, their reports and its policy; (0, [], None) without a checkpoint."""
    checkpoint = _latest_checkpoint(run)
    return (0, [], None) if checkpoint is None else checkpoints.read(checkpoint)


def _updates_done(run: RunDirectory) -> int:
    """Updates in the newest checkpoint; 0 without one."""
    return progress(run)[0]


def train(config: WorkerConfig, stream: Callable[[int], ray.data.Dataset], run: RunDirectory) -> Iterator[UpdateReport]:
    """Train, and yield the report of every update as it is made.

    A worker that dies takes the group back to the newest checkpoint: the stream is made anew from there, and updates
    made again are not yielded again.

    Args:
        config: of the workers.
        stream: first update -> the contributions from there on.
        run: where checkpoints go; a run with checkpoints goes on from the newest.

    Raises:
        RunGivenUp: a model or reward raised an exception.
        ray.train.TrainingFailedError: the group failed more often than `trainers.max_failures`.
    """
    trainers = config.trainers
    options = ray.data.ExecutionOptions(preserve_order=True)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"worker": config},
        # Called at every start of the group, so that a restart gets the stream from its checkpoint on.
        datasets={ROLLOUTS: lambda: stream(_updates_done(run))},
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
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=checkpoints.KEPT),
            failure_config=ray.train.FailureConfig(max_failures=trainers.max_failures),
        ),
    )
    yield from _reports_while(trainer.fit, config.store, _updates_done(run) - 1)


def _reports_while(fit: Callable[[], Any], store: Any, last: int) -> Iterator[UpdateReport]:
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
        report = ray.get(store.next_report.remote(last, 1.0 if running else 0.0))
        if report is not None:
            last = report.update
            yield report
        elif (why := ray.get(store.failure.remote())) is not None:
            raise RunGivenUp(why)
        elif not running:
            break
    if failure:
        raise failure[0]


def _latest_checkpoint(run: RunDirectory) -> ray.train.Checkpoint | None:
    return checkpoints.latest(f"{run.path}/{TRAIN}", run.filesystem)

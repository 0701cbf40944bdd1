"""The Ray Train group, seen from the driver: start it, and hear of every update."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray.data
import ray.train
import torch
from ray.train.torch import TorchTrainer

from sdo_ray.cluster import cause_of
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.training import checkpoints
from sdo_ray.training.channel import Channel
from sdo_ray.training.decisions import RollBack, Stop
from sdo_ray.training.records import UpdateReport
from sdo_ray.training.worker import ROLLOUTS, WorkerConfig, train_worker


class RunGivenUp(RuntimeError):
    """Trying again would fail again; the message is the cause."""


TRAIN = "train"
"""The subdirectory of a run that Ray Train keeps its checkpoints in."""

ENDING = "ending.json"
"""There if training ended before all updates were made: `version`, what the run hands out, and `reason`."""


@dataclass(frozen=True)
class FinalPolicy:
    """What a run hands out."""

    version: int
    """Updates in it."""
    weights: dict[str, torch.Tensor]
    """Name -> float32 weights of what is trained."""
    why: str
    """In words: why this version."""


def progress(run: RunDirectory) -> tuple[int, list[UpdateReport]]:
    """Updates in the newest checkpoint, and their reports; (0, []) without a checkpoint."""
    checkpoints_ = _kept(run)
    return checkpoints.read_progress(checkpoints_[max(checkpoints_)]) if checkpoints_ else (0, [])


def has_ended(run: RunDirectory, updates: int) -> bool:
    """Whether there is nothing left to train: all `updates` are made, or it was decided to make no more."""
    return _ending(run) is not None or max(_kept(run), default=0) >= updates


def check_updates(run: RunDirectory, updates: int) -> None:
    """Refuse fewer updates than were made already.

    Raises:
        SettingsError: of `updates`.
    """
    if (made := max(_kept(run), default=0)) > updates:
        got = f"got {updates}, and the run {run.name!r} has made {made}"
        raise SettingsError(Problem("updates", got, fix="ask for as many, or more, or choose another run.name"))


def is_extended(run: RunDirectory, updates: int, asked: int | None) -> bool:
    """Whether a complete run is to make more updates than it was asked for, and can.

    Args:
        run: its directory.
        updates: that are asked for now.
        asked: that were asked for when it was completed; None if that is not known.
    """
    made = max(_kept(run), default=0)
    return made > 0 and _ending(run) is None and updates > (made if asked is None else asked)


def end_training(run: RunDirectory, decision: Stop | RollBack) -> None:
    """Write down that training ended early, and with which version; called once the trainers are gone.

    After a roll-back, that is of the versions kept the newest with at most so many updates, or version 0.
    """
    reachable = decision.version if isinstance(decision, RollBack) else sys.maxsize
    version = max((version for version in _kept(run) if version <= reachable), default=0)
    run.write_json(ENDING, {"version": version, "reason": decision.reason})


def final_policy(run: RunDirectory, initial: dict[str, torch.Tensor]) -> FinalPolicy:
    """The policy that a run whose training has ended hands out.

    Args:
        run: its directory.
        initial: policy version 0.
    """
    versions, ending = _kept(run), _ending(run)
    if ending is None:
        version, why = max(versions), "all updates were made"
    else:
        version, why = ending["version"], ending["reason"]
    weights = checkpoints.read_policy(versions[version]) if version else initial
    return FinalPolicy(version, weights, why)


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
    config, trainers = _from_whole_ones(config, run), config.trainers
    options = ray.data.ExecutionOptions(preserve_order=True)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"worker": config},
        # Called at every start of the group, so that a restart gets the stream from its checkpoint on.
        datasets={ROLLOUTS: lambda: stream(_newest(run, config.damaged))},
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
    yield from _reports_while(trainer.fit, config.channel, _newest(run, config.damaged) - 1)


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


def _from_whole_ones(config: WorkerConfig, run: RunDirectory) -> WorkerConfig:
    """Have the workers pass by checkpoints that are damaged, and say which these are."""
    damaged, whole = set[str](), None
    for update, checkpoint in checkpoints.known(f"{run.path}/{TRAIN}", run.filesystem):
        if (why := checkpoints.why_not(update, checkpoint)) is None:
            whole = checkpoint
        else:
            damaged.add(Path(checkpoint.path).name)
            print(f"{run.name}: the checkpoint {checkpoint.path} of update {update} is not taken: {why}", flush=True)
    if damaged:
        before = "the first update" if whole is None else f"{whole.path}, which is whole"
        print(f"{run.name}: it goes on from {before}", flush=True)
    return replace(config, damaged=frozenset(damaged), whole=whole)


def _newest(run: RunDirectory, damaged: Collection[str]) -> int:
    """Updates in the newest checkpoint that the workers take; 0 if there is none."""
    known = checkpoints.known(f"{run.path}/{TRAIN}", run.filesystem)
    return max((update for update, checkpoint in known if Path(checkpoint.path).name not in damaged), default=0)


def _ending(run: RunDirectory) -> Any:
    return run.read_json(ENDING, lost="that training was ended early, and why; it goes on to `training.updates`")


def _kept(run: RunDirectory) -> dict[int, ray.train.Checkpoint]:
    return checkpoints.kept(f"{run.path}/{TRAIN}", run.filesystem)

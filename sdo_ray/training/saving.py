"""Checkpoints made and read by the trainers. The files are written beside training, from copies in memory."""

from __future__ import annotations

import errno
import json
import statistics
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import safetensors.torch
import torch
import torch.distributed
from ray.train import CheckpointUploadMode

from rewards.pulls import Memory
from sdo_ray.storage import RunDirectory
from sdo_ray.training.channel import Channel
from sdo_ray.training.checkpoints import ENGINE, OPTIMIZER, POLICY, PROGRESS, SCORE, Made, checkpoint_metrics, parsed
from sdo_ray.training.history import write_reports
from sdo_ray.training.manifest import files_in, write_manifest
from sdo_ray.training.optimizer_state import State, gather_state, load_state
from sdo_ray.training.records import UpdateReport

LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""What is wrong with storage that is full or may not be written to."""

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Content:
    """What a checkpoint consists of; tensors are copies of its own, on the CPU."""

    update: int
    """Updates in the policy."""
    memory: Memory
    """What is known of the rewards after them."""
    policy: Weights
    averages: Mapping[str, Weights]
    """File name -> of the policies, `AVERAGE` and `COMPANION`, where there are any."""
    state: State
    """Of the optimizer."""
    score: float | None = None
    """What says which checkpoint is best: the mean reward since the one before, where there was any."""
    run: str | None = None
    """Name of the run that it is of."""

    def write(self, directory: Path) -> None:
        """Write the files, and last their manifest."""
        (directory / OPTIMIZER).mkdir(parents=True)
        safetensors.torch.save_file(dict(self.policy), directory / POLICY)
        for name, average in self.averages.items():
            safetensors.torch.save_file(dict(average), directory / name)
        for key, tensors in self.state.items():
            safetensors.torch.save_file(tensors, directory / OPTIMIZER / f"{key}.safetensors")
        progress: dict[str, Any] = {"run": self.run, "update": self.update, SCORE: self.score}
        progress |= {"manifest": True, "memory": self.memory.to_json()}
        (directory / PROGRESS).write_text(json.dumps(progress))
        write_manifest(directory, files_in(directory))


class Saver:
    """Makes the checkpoints of a run; every worker has one.

    The first worker writes them in a thread of Ray Train, which ends before the worker does, and whose errors are the
    worker's. One at a time: who comes with the next one waits for it.

    Args:
        run: keeps the reports of updates.
        channel: ends the run if the storage is full or cannot be written, as it would be again.
    """

    def __init__(self, run: RunDirectory, channel: Channel) -> None:
        self._run = run
        self._channel = channel
        self._writing = threading.Lock()

    def save(
        self,
        engine: Any,
        update: int,
        reports: Sequence[UpdateReport],
        memory: Memory,
        policy: Weights,
        averages: Mapping[str, Weights],
    ) -> None:
        """Checkpoint a policy with `update` updates; to be called by all workers.

        Args:
            engine: DeepSpeed's.
            update: updates in the policy.
            reports: of those since the checkpoint before; the score is the mean over them.
            memory: what is known of the rewards.
            policy: the first worker's `policy_weights`.
            averages: the first worker's averages of the policies, by the names of their files.
        """
        with self._writing:  # its copies are gone by then
            state = gather_state(engine)
        rewards = [report.reward.mean for report in reports if report.reward.mean is not None]
        score = statistics.fmean(rewards) if rewards else None
        metrics = checkpoint_metrics(update, score)
        if torch.distributed.get_rank() != 0:
            ray.train.report(metrics, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)
            return
        averages = {file: {name: w.clone() for name, w in average.items()} for file, average in averages.items()}
        content, reports, context = (
            Content(update, memory, policy, averages, state, score, self._run.name),
            tuple(reports),
            ray.train.get_context(),
        )

        def write(checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
            with self._writing:
                try:
                    write_reports(self._run, reports)
                    content.write(Path(checkpoint.path))
                    return context.get_storage().persist_current_checkpoint(checkpoint, name)
                except OSError as error:
                    if error.errno in LASTING:
                        self._channel.give_up(f"the checkpoint of update {update} cannot be written: {error}")
                    raise

        ray.train.report(
            metrics,
            ray.train.Checkpoint.from_directory(tempfile.mkdtemp()),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,  # which also removes the directory
            checkpoint_upload_fn=write,
        )


def restore(engine: Any, checkpoint: ray.train.Checkpoint) -> Made:
    """Load a checkpoint into the engine; to be called by all workers, of whatever number. Returns what was made."""
    with checkpoint.as_directory() as name:
        directory = Path(name)
        if (directory / ENGINE).is_dir():
            engine.load_checkpoint(name, tag=ENGINE, load_module_strict=False)
        else:
            files = (directory / OPTIMIZER).glob("*.safetensors")
            state = {file.stem: safetensors.torch.load_file(file) for file in files}
            load_state(engine, safetensors.torch.load_file(directory / POLICY), state)
        return parsed((directory / PROGRESS).read_bytes())

"""Checkpoints of a run: DeepSpeed's sharded state, the adapter for everybody else, and the reports so far.

checkpoint/  engine/...            optimizer and weights as DeepSpeed shards them, one file a worker
             adapter.safetensors   the policy, parameter name -> float32
             average.safetensors   with `training.average`: the average of the policies, likewise
             progress.json         {"update": u, "reports": [...]}: u updates are in the policy
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray.train
import safetensors.torch
import torch
import torch.distributed

from sdo_ray.rollout.records import load_tensors
from sdo_ray.training.records import UpdateReport

POLICY, AVERAGE, PROGRESS = "adapter.safetensors", "average.safetensors", "progress.json"

Weights = Mapping[str, torch.Tensor]

KEPT = 2
"""Checkpoints kept: the newest, and the one whose updates since the checkpoint before had the highest mean reward."""

SCORE = "reward"
"""The metric that says which is best."""


def save(
    engine: Any, update: int, reports: Sequence[UpdateReport], every: int, policy: Weights, average: Weights | None
) -> None:
    """Checkpoint a policy with `update` updates; to be called by all workers, and waits for all.

    Args:
        engine: DeepSpeed's.
        update: updates in the policy.
        reports: of all of them.
        every: updates between checkpoints, over whose reports the score is a mean.
        policy: the first worker's `policy_weights`.
        average: the first worker's average of the policies, if there is one.
    """
    rewards = [report.reward.mean for report in reports[-every:] if report.reward.mean is not None]
    # Ray takes the lowest for one without a score.
    score = {SCORE: statistics.fmean(rewards)} if rewards else {}
    with tempfile.TemporaryDirectory() as directory:
        write(engine, Path(directory), update, reports, policy, average)
        ray.train.report({"update": update} | score, checkpoint=ray.train.Checkpoint.from_directory(directory))


def write(
    engine: Any,
    directory: Path,
    update: int,
    reports: Sequence[UpdateReport],
    policy: Weights,
    average: Weights | None,
) -> None:
    """The files of a checkpoint, each worker's its own; to be called by all workers; see `save`."""
    engine.save_checkpoint(str(directory), tag="engine", exclude_frozen_parameters=True)
    if torch.distributed.get_rank() == 0:
        safetensors.torch.save_file(dict(policy), directory / POLICY)
        if average is not None:
            safetensors.torch.save_file(dict(average), directory / AVERAGE)
        progress = {"update": update, "reports": [report.to_json() for report in reports]}
        (directory / PROGRESS).write_text(json.dumps(progress))


def restore(engine: Any, checkpoint: ray.train.Checkpoint) -> tuple[int, list[UpdateReport]]:
    """Load a checkpoint into the engine; to be called by all workers. Returns the updates in it and their reports."""
    with checkpoint.as_directory() as directory:
        engine.load_checkpoint(directory, tag="engine", load_module_strict=False)
        return _parsed((Path(directory) / PROGRESS).read_bytes())


def checkpoint_bytes(adapter: Mapping[str, torch.Tensor]) -> int:
    """Room for `KEPT` checkpoints and one in the making, in float32: weights twice, average, masters, two moments."""
    return 6 * 4 * sum(tensor.numel() for tensor in adapter.values()) * (KEPT + 1)


def kept(run_path: str, filesystem: Any = None) -> dict[int, ray.train.Checkpoint]:
    """Updates in the policy -> checkpoint, of those that a run has kept, in this order.

    Args:
        run_path: the run's directory as Ray Train writes it.
        filesystem: pyarrow filesystem, for paths that are not local.
    """
    try:
        result = ray.train.Result.from_path(run_path, storage_filesystem=filesystem)
    except RuntimeError:  # nothing was saved there yet
        return {}
    both = list(result.best_checkpoints or [])
    if result.checkpoint is not None and result.metrics is not None:
        both.append((result.checkpoint, result.metrics))
    return dict(sorted((metrics["update"], checkpoint) for checkpoint, metrics in both))


def read_progress(checkpoint: ray.train.Checkpoint) -> tuple[int, list[UpdateReport]]:
    """Updates in a checkpoint, and their reports."""
    return _parsed(_read(checkpoint, PROGRESS))


def read_policy(checkpoint: ray.train.Checkpoint) -> dict[str, torch.Tensor]:
    """What a checkpoint has to hand out, name -> float32 weights: the average of the policies, or else the newest."""
    return read_average(checkpoint) or load_tensors(_read(checkpoint, POLICY))


def read_average(checkpoint: ray.train.Checkpoint) -> dict[str, torch.Tensor] | None:
    """The average of the policies; None without one."""
    try:
        return load_tensors(_read(checkpoint, AVERAGE))
    except FileNotFoundError:
        return None


def _read(checkpoint: ray.train.Checkpoint, name: str) -> bytes:
    """One file: the optimizer's shards may be large, and far away."""
    with checkpoint.filesystem.open_input_file(f"{checkpoint.path}/{name}") as file:
        data: bytes = file.read()
    return data


def _parsed(progress: bytes) -> tuple[int, list[UpdateReport]]:
    data = json.loads(progress)
    return data["update"], [UpdateReport.from_json(report) for report in data["reports"]]

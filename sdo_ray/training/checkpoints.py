"""Checkpoints of a run: DeepSpeed's sharded state, the adapter for everybody else, and the reports so far.

checkpoint/  engine/...            optimizer and weights as DeepSpeed shards them, one file a worker
             adapter.safetensors   the policy, parameter name -> float32
             average.safetensors   with `training.average`: the average of the policies, likewise
             progress.json         {"update": u, "reports": [...]}: u updates are in the policy
             manifest.json         size and hash of all others
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
from ray.train.v2._internal.exceptions import CheckpointManagerInitializationError

from sdo_ray.rollout.records import load_tensors
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.training.manifest import MANIFEST, damage, exists, files_in, write_manifest
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
        progress = {"update": update, "manifest": True, "reports": [report.to_json() for report in reports]}
        (directory / PROGRESS).write_text(json.dumps(progress))
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, files_in(directory))
    if torch.distributed.get_rank() == 0:
        write_manifest(directory, {name: file for part in reversed(parts) for name, file in part.items()})


def restore(engine: Any, checkpoint: ray.train.Checkpoint) -> tuple[int, list[UpdateReport]]:
    """Load a checkpoint into the engine; to be called by all workers. Returns the updates in it and their reports."""
    with checkpoint.as_directory() as directory:
        engine.load_checkpoint(directory, tag="engine", load_module_strict=False)
        return _parsed((Path(directory) / PROGRESS).read_bytes())


def checkpoint_bytes(adapter: Mapping[str, torch.Tensor]) -> int:
    """Room for `KEPT` checkpoints and one in the making, in float32: weights twice, average, masters, two moments."""
    return 6 * 4 * sum(tensor.numel() for tensor in adapter.values()) * (KEPT + 1)


def known(run_path: str, filesystem: Any = None) -> list[tuple[int, ray.train.Checkpoint]]:
    """Those that a run has kept, damaged or not, and the updates in the policy of each, in this order.

    Args:
        run_path: the run's directory as Ray Train writes it.
        filesystem: pyarrow filesystem, for paths that are not local.

    Raises:
        SettingsError: the list of checkpoints that Ray Train keeps is damaged.
    """
    try:
        result = ray.train.Result.from_path(run_path, storage_filesystem=filesystem)
    except CheckpointManagerInitializationError as error:
        raise _no_list(run_path, error) from None
    except RuntimeError:  # nothing was saved there yet
        return []
    except ValueError as error:
        raise _no_list(run_path, error) from None
    both = list(result.best_checkpoints or [])
    if result.checkpoint is not None and result.metrics is not None:
        both.append((result.checkpoint, result.metrics))
    found = {checkpoint.path: (metrics["update"], checkpoint) for checkpoint, metrics in both}
    return sorted(found.values(), key=lambda each: each[0])


def kept(run_path: str, filesystem: Any = None) -> dict[int, ray.train.Checkpoint]:
    """Updates in the policy -> checkpoint, of those that a run has kept and that are whole; see `known`."""
    return {update: found for update, found in known(run_path, filesystem) if why_not(update, found) is None}


def why_not(update: int, checkpoint: ray.train.Checkpoint) -> str | None:
    """Why a checkpoint is not taken, in words; None if it can be.

    Args:
        update: updates that it should have in its policy.
        checkpoint: where it is.
    """
    if (damaged := damage(checkpoint)) is not None:
        return damaged
    try:
        progress = json.loads(_read(checkpoint, PROGRESS))
        made, has_manifest = progress["update"], progress.get("manifest", False)
    except FileNotFoundError:
        return f"{PROGRESS} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{PROGRESS} is not what was written"
    if has_manifest and not exists(checkpoint):
        return f"{MANIFEST} is missing"
    return None if made == update else f"{PROGRESS} is of update {made}, and not of {update}"


def _no_list(run_path: str, error: Exception) -> SettingsError:
    cause = " ".join(str(error).split())[:200]
    file = f"{run_path}/checkpoint_manager_snapshot.json"
    got = f"{file}, the list of checkpoints, is damaged or names what is gone: {cause}"
    fix = f"restore it; or remove {run_path}, and the same command begins with the first update again"
    return SettingsError(Problem("run.storage", got, fix=fix))


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

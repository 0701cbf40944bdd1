"""Checkpoints of a run: DeepSpeed's sharded state, the adapter for everybody else, and the reports so far.

checkpoint/  engine/...            optimizer and weights as DeepSpeed shards them, one file a worker
             adapter.safetensors   the policy, parameter name -> float32
             progress.json         {"update": u, "reports": [...]}: u updates are in the policy
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray.train
import safetensors.torch
import torch
import torch.distributed

from sdo_ray.training.engine import policy_weights
from sdo_ray.training.records import UpdateReport

KEPT = 2
"""Checkpoints kept."""


def save(engine: Any, update: int, reports: Sequence[UpdateReport]) -> None:
    """Checkpoint a policy with `update` updates; to be called by all workers, and waits for all."""
    with tempfile.TemporaryDirectory() as directory:
        write(engine, Path(directory), update, reports)
        ray.train.report({"update": update}, checkpoint=ray.train.Checkpoint.from_directory(directory))


def write(engine: Any, directory: Path, update: int, reports: Sequence[UpdateReport]) -> None:
    """The files of a checkpoint, each worker's its own; to be called by all workers."""
    engine.save_checkpoint(str(directory), tag="engine", exclude_frozen_parameters=True)
    weights = policy_weights(engine)
    if torch.distributed.get_rank() == 0:
        safetensors.torch.save_file(weights, directory / "adapter.safetensors")
        progress = {"update": update, "reports": [report.to_json() for report in reports]}
        (directory / "progress.json").write_text(json.dumps(progress))


def restore(engine: Any, checkpoint: ray.train.Checkpoint) -> tuple[int, list[UpdateReport]]:
    """Load a checkpoint into the engine; to be called by all workers. Returns the updates in it and their reports."""
    with checkpoint.as_directory() as directory:
        engine.load_checkpoint(directory, tag="engine", load_module_strict=False)
        return _progress(Path(directory))


def checkpoint_bytes(adapter: Mapping[str, torch.Tensor]) -> int:
    """Room for `KEPT` checkpoints and one in the making: weights twice, master weights and two moments, in float32."""
    return 5 * 4 * sum(tensor.numel() for tensor in adapter.values()) * (KEPT + 1)


def latest(run_path: str, filesystem: Any = None) -> ray.train.Checkpoint | None:
    """The newest checkpoint of a run, or None.

    Args:
        run_path: the run's directory as Ray Train writes it.
        filesystem: pyarrow filesystem, for paths that are not local.
    """
    try:
        return ray.train.Result.from_path(run_path, storage_filesystem=filesystem).checkpoint
    except RuntimeError:  # nothing was saved there yet
        return None


def read(checkpoint: ray.train.Checkpoint) -> tuple[int, list[UpdateReport], dict[str, torch.Tensor]]:
    """Updates, their reports, and the adapter's weights of a checkpoint."""
    with checkpoint.as_directory() as directory:
        update, reports = _progress(Path(directory))
        return update, reports, safetensors.torch.load_file(Path(directory) / "adapter.safetensors")


def _progress(directory: Path) -> tuple[int, list[UpdateReport]]:
    progress = json.loads((directory / "progress.json").read_text())
    return progress["update"], [UpdateReport.from_json(report) for report in progress["reports"]]

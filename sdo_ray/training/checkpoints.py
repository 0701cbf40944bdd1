"""What a checkpoint holds, for everybody who has no optimizer; `saving` makes them, `listing` finds those of a run.

checkpoint/  optimizer/KEY.safetensors   the optimizer's state, parameter name -> tensor, for any number of trainers
             adapter.safetensors         the policy, parameter name -> float32
             average.safetensors         with `training.average`: the average of the policies, likewise
             companion.safetensors       the average that samplers of some plans get beside the policy, likewise
             progress.json               {"run": name, "update": u, "reward": r, "memory": {...}}: u updates are in
                                         the policy
             manifest.json               size and hash of all others

Earlier versions wrote, in place of optimizer/, engine/ as DeepSpeed shards it over their number of trainers, and the
reports of all updates into progress.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray.train
import torch
from pyarrow import fs

from rewards.pulls import Memory
from sdo_ray.rollout.tensors import load_tensors
from sdo_ray.training.manifest import MANIFEST, damage, exists
from sdo_ray.training.records import UpdateReport, memory_after

POLICY, AVERAGE, COMPANION = "adapter.safetensors", "average.safetensors", "companion.safetensors"
PROGRESS = "progress.json"
OPTIMIZER, ENGINE = "optimizer", "engine"

KEPT = 2
"""Checkpoints kept: the newest, and the one whose updates since the checkpoint before had the highest mean reward."""

SCORE = "reward"
"""The metric that says which is best."""


@dataclass(frozen=True)
class Made:
    """What a run had done when it was checkpointed."""

    update: int
    """Updates in the policy."""
    memory: Memory
    """What is known of the rewards after them."""
    reports: Sequence[UpdateReport]
    """Of all updates, where an earlier version wrote them here; none otherwise, see `history`."""


def checkpoint_bytes(adapter: Mapping[str, torch.Tensor]) -> int:
    """Room for `KEPT` checkpoints and one in the making, in float32: weights, two averages, and two moments."""
    return 5 * 4 * sum(tensor.numel() for tensor in adapter.values()) * (KEPT + 1)


def checkpoint_metrics(update: int, score: float | None) -> dict[str, float]:
    """What Ray Train is told of a checkpoint; it takes the lowest score for one without."""
    return {"update": update} | ({} if score is None else {SCORE: score})


def why_not(run: str, update: int, checkpoint: ray.train.Checkpoint) -> str | None:
    """Why a checkpoint is not taken, in words; None if it can be.

    Args:
        run: name of the run that it should be of.
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
    if (other := progress.get("run")) not in (None, run):  # earlier versions did not say
        return f"it is of the run {other!r}"
    return None if made == update else f"{PROGRESS} is of update {made}, and not of {update}"


def read_progress(checkpoint: ray.train.Checkpoint) -> Made:
    """What was made when a checkpoint was."""
    return parsed(_read(checkpoint, PROGRESS))


def workers_bound(checkpoint: ray.train.Checkpoint) -> int | None:
    """The only number of trainers that can read a checkpoint of an earlier version; None if any can."""
    selector = fs.FileSelector(f"{checkpoint.path}/{ENGINE}", allow_not_found=True)
    names = [info.base_name for info in checkpoint.filesystem.get_file_info(selector)]
    return sum(name.endswith("optim_states.pt") for name in names) or None


def read_policy(checkpoint: ray.train.Checkpoint) -> dict[str, torch.Tensor]:
    """What a checkpoint has to hand out, name -> float32 weights: the average of the policies, or else the newest."""
    return read_average(checkpoint) or load_tensors(_read(checkpoint, POLICY))


def read_average(checkpoint: ray.train.Checkpoint) -> dict[str, torch.Tensor] | None:
    """The average of the policies; None without one."""
    return _read_weights(checkpoint, AVERAGE)


def read_companion(checkpoint: ray.train.Checkpoint) -> dict[str, torch.Tensor] | None:
    """The average that the samplers get beside the policy; None without one."""
    return _read_weights(checkpoint, COMPANION)


def _read_weights(checkpoint: ray.train.Checkpoint, name: str) -> dict[str, torch.Tensor] | None:
    try:
        return load_tensors(_read(checkpoint, name))
    except FileNotFoundError:
        return None


def _read(checkpoint: ray.train.Checkpoint, name: str) -> bytes:
    """One file: the optimizer's shards may be large, and far away."""
    with checkpoint.filesystem.open_input_file(f"{checkpoint.path}/{name}") as file:
        data: bytes = file.read()
    return data


def parsed(progress: bytes) -> Made:
    """Read the content of `PROGRESS`."""
    data = json.loads(progress)
    reports = tuple(UpdateReport.from_json(report) for report in data.get("reports", ()))
    memory = Memory.from_json(data["memory"]) if "memory" in data else memory_after(reports)
    return Made(data["update"], memory, reports)

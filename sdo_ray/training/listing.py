"""The checkpoints of a run: Ray Train's list of them, and what is done without it.

Ray Train writes the list in place, so that a full disk, or whoever is killed then, leaves half of it. What it said is
in the checkpoints: those that are whole are found again by their manifests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.data
import ray.train
from pyarrow import fs
from ray.train.v2._internal.exceptions import CheckpointManagerInitializationError
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import (
    _CheckpointManagerState,
    _TrainingResultState,
)

from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.training.checkpoints import PROGRESS, SCORE, checkpoint_metrics, why_not
from sdo_ray.training.manifest import exists

TRAIN = "train"
"""The subdirectory of a run that Ray Train keeps its checkpoints in."""

LIST = f"{TRAIN}/checkpoint_manager_snapshot.json"
"""Ray Train's list of them."""


class _Damaged(Exception):
    """The list cannot be read, or names what is gone."""


def known(run: RunDirectory) -> list[tuple[int, ray.train.Checkpoint]]:
    """Those that a run has kept, damaged or not, and the updates in the policy of each, in this order.

    Where the list of them is damaged, those that are whole.

    Raises:
        SettingsError: the list is damaged, and a version without manifests wrote checkpoints that it named.
    """
    try:
        return _listed(run)
    except _Damaged as damaged:
        return [(metrics["update"], checkpoint) for checkpoint, metrics in _whole(run, damaged)]


def kept(run: RunDirectory) -> dict[int, ray.train.Checkpoint]:
    """Updates in the policy -> checkpoint, of those that a run has kept and that are whole; see `known`."""
    return {update: found for update, found in known(run) if why_not(run.name, update, found) is None}


def newest(run: RunDirectory, damaged: Collection[str]) -> int:
    """Updates in the newest checkpoint that is not among those `damaged`, by directory; 0 if there is none."""
    return max((update for update, checkpoint in known(run) if Path(checkpoint.path).name not in damaged), default=0)


@dataclass(frozen=True)
class FromNewest:
    """Called at every start of a group of trainers: the stream from the newest whole checkpoint on."""

    stream: Callable[[int], ray.data.Dataset]
    """First update -> the contributions from there on."""
    run: RunDirectory
    damaged: frozenset[str]
    """Directories of checkpoints that are not taken."""

    def __call__(self) -> ray.data.Dataset:
        """The stream."""
        return self.stream(newest(self.run, self.damaged))


def mend(run: RunDirectory) -> None:
    """Make a damaged list again, of the checkpoints that are whole, and say so.

    Raises:
        SettingsError: as `known`.
    """
    try:
        _listed(run)
    except _Damaged as damaged:
        whole = sorted(_whole(run, damaged), key=lambda each: _order(each[1]))
        states = [_TrainingResultState(checkpoint_dir_name=Path(c.path).name, metrics=m) for c, m in whole]
        by_update = sorted(states, key=lambda state: state.metrics["update"])
        state = _CheckpointManagerState(
            checkpoint_results=states,
            checkpoint_report_indices=[by_update.index(each) for each in states],
            latest_checkpoint_result=by_update[-1] if by_update else None,
            pending_training_results=[],
            pending_validation_specs=[],
            current_report_index=len(states),
            validated_checkpoint_dir_names=[],
            timed_out_validation_checkpoint_dir_names=[],
            failed_validation_checkpoint_dir_names=[],
        )
        run.write(LIST, state.json().encode())
        has = ", ".join(str(each.metrics["update"]) for each in by_update)
        of = f"those of update {has} are whole" if states else "none is whole, and it begins with the first update"
        print(f"{run.name}: the list of checkpoints {run.place(LIST)} was {damaged}; made again: {of}", flush=True)


def _listed(run: RunDirectory) -> list[tuple[int, ray.train.Checkpoint]]:
    try:
        result = ray.train.Result.from_path(f"{run.path}/{TRAIN}", storage_filesystem=run.filesystem)
    except (CheckpointManagerInitializationError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        raise _Damaged(f"damaged or names what is gone ({cause})") from None
    except RuntimeError:  # nothing was saved there yet
        return []
    both = list(result.best_checkpoints or [])
    if result.checkpoint is not None and result.metrics is not None:
        both.append((result.checkpoint, result.metrics))
    found = {checkpoint.path: (metrics["update"], checkpoint) for checkpoint, metrics in both}
    return sorted(found.values(), key=lambda each: each[0])


def _whole(run: RunDirectory, damaged: _Damaged) -> Iterator[tuple[ray.train.Checkpoint, dict[str, Any]]]:
    """The checkpoints that are whole, and what Ray Train had been told of each; in the order of their names."""
    for info in sorted(run.filesystem.get_file_info(fs.FileSelector(f"{run.path}/{TRAIN}")), key=lambda i: i.path):
        if info.type != fs.FileType.Directory or not info.base_name.startswith("checkpoint_"):
            continue
        checkpoint = ray.train.Checkpoint(info.path, run.filesystem)
        try:
            progress = json.loads(run.read(f"{TRAIN}/{info.base_name}/{PROGRESS}"))
            update, score = progress["update"], progress.get(SCORE)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue  # in the making when the list was cut
        if why_not(run.name, update, checkpoint) is not None:
            continue
        if not exists(checkpoint):  # nothing says whether it is whole
            got = f"{run.place(LIST)}, the list of checkpoints, is {damaged}"
            fix = f"restore it; or remove {run.place(TRAIN)}, and the same command begins with the first update again"
            raise SettingsError(Problem("run.storage", got, fix=fix))
        yield checkpoint, checkpoint_metrics(update, score)


def _order(metrics: dict[str, Any]) -> tuple[float, int]:
    """Ray Train's: ascending by score, those without one first."""
    score = metrics.get(SCORE, -math.inf)
    return (-math.inf if math.isnan(score) else score), metrics["update"]

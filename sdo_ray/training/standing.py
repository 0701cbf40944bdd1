"""Where the training of a run stands: the updates made, how it ended, and the policy that is handed out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sdo_ray.rollout.tensors import load_tensors, parted
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.training import checkpoints
from sdo_ray.training.decisions import RollBack, Stop
from sdo_ray.training.history import read_reports
from sdo_ray.training.listing import kept
from sdo_ray.training.records import UpdateReport
from sdo_ray.training.settings import TrainerSettings

GOOD, GOOD_VERSION = "good.safetensors", "good.json"
"""The newest policy that passed its rules, where there are any, and the updates in it."""

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
    if not (whole := kept(run)):
        return 0, []
    made = checkpoints.read_progress(whole[max(whole)])
    return made.update, list(made.reports) or read_reports(run, made.update)


def has_ended(run: RunDirectory, updates: int) -> bool:
    """Whether there is nothing left to train: all `updates` are made, or it was decided to make no more."""
    return _ending(run) is not None or max(kept(run), default=0) >= updates


def check_updates(run: RunDirectory, updates: int) -> None:
    """Refuse fewer updates than were made already.

    Raises:
        SettingsError: of `updates`.
    """
    if (made := max(kept(run), default=0)) > updates:
        got = f"got {updates}, and the run {run.name!r} has made {made}"
        raise SettingsError(Problem("updates", got, fix="ask for as many, or more, or choose another run.name"))


def check_trainers(run: RunDirectory, trainers: TrainerSettings) -> None:
    """Refuse trainers that cannot read the newest checkpoint; one of this version can be by any.

    Raises:
        SettingsError: of `count`, or of `dtype`.
    """
    if not (whole := kept(run)):
        return
    workers = checkpoints.workers_bound(whole[max(whole)])
    newest = f"and the newest checkpoint of the run {run.name!r}, of an earlier version, is for"
    if workers not in (None, trainers.count):
        fix = f"go on with {workers} until the next checkpoint is made"
        raise SettingsError(Problem("count", f"got {trainers.count}, {newest} {workers}", fix=fix))
    if workers is not None and trainers.dtype != "float32":
        fix = "go on with that until the next checkpoint is made"
        raise SettingsError(Problem("dtype", f"got {trainers.dtype!r}, {newest} float32", fix=fix))


def is_extended(run: RunDirectory, updates: int, asked: int | None) -> bool:
    """Whether a complete run is to make more updates than it was asked for, and can.

    Args:
        run: its directory.
        updates: that are asked for now.
        asked: that were asked for when it was completed; None if that is not known.
    """
    made = max(kept(run), default=0)
    return made > 0 and _ending(run) is None and updates > (made if asked is None else asked)


def newest_kept(run: RunDirectory, updates: int) -> int:
    """The newest version with at most so many updates, of the checkpoints and what `keep_good` kept last; else 0."""
    return max((version for version in (*kept(run), good_version(run)) if version <= updates), default=0)


def end_training(run: RunDirectory, decision: Stop | RollBack) -> None:
    """Write down that training ended early, and with which version; called once the trainers are gone.

    After a roll-back, that is `newest_kept`.
    """
    version = newest_kept(run, decision.version) if isinstance(decision, RollBack) else max(kept(run), default=0)
    run.write_json(ENDING, {"version": version, "reason": decision.reason})


def final_policy(run: RunDirectory, initial: dict[str, torch.Tensor]) -> FinalPolicy:
    """The policy that a run whose training has ended hands out.

    Args:
        run: its directory.
        initial: policy version 0.
    """
    versions, ending = kept(run), _ending(run)
    if ending is None:
        version, why = max(versions), "all updates were made"
    else:
        version, why = ending["version"], ending["reason"]
    if version in versions:
        weights = checkpoints.read_policy(versions[version])
    else:
        weights = parted(load_tensors(run.read(GOOD)))[0] if version else initial
    return FinalPolicy(version, weights, why)


def keep_good(run: RunDirectory, version: int, weights: bytes) -> None:
    """Keep a policy that nothing speaks against, in place of the one before, to be rolled back to.

    Args:
        run: its directory.
        version: updates in it.
        weights: as of `dump_tensors`.
    """
    run.write(GOOD, weights)
    run.write_json(GOOD_VERSION, {"version": version})


def good_version(run: RunDirectory) -> int:
    """Updates in the policy that `keep_good` kept last; 0 without one."""
    known = run.read_json(GOOD_VERSION, lost="the version to roll back to; an earlier checkpoint is taken")
    return known["version"] if known else 0


def _ending(run: RunDirectory) -> Any:
    return run.read_json(ENDING, lost="that training was ended early, and why; it goes on to `training.updates`")

"""How far a run is, for whoever asks from outside: a small file that its driver writes as it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyarrow import fs

from sdo_ray.driver.lock import holder
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import RunDirectory

FILE = "state.json"
SETTINGS = "settings.json"
"""What every run's directory has."""
EVERY = 2.0
"""Seconds between two writings, at least; the last of a run is always written."""

COMPLETE_WITH = {
    "align": "outcome.json",
    "optimize": "outcome.json",
    "evaluate": "evaluation.json",
    "fidelity": "fidelity.json",
    "schedule": "schedule.json",
    "cycle": "summary.json",
}
"""The file that a command writes last."""
KNOWN_BY = {
    "trainers": "align",
    "optimization": "optimize",
    "models": "evaluate",
    "fidelity": "fidelity",
    "search": "schedule",
    "promote": "cycle",
}
"""A section that no other command's settings have: of runs that wrote no state."""


@dataclass(frozen=True)
class Progress:
    """How much of what is done."""

    command: str
    done: int = 0
    total: int = 0
    unit: str = ""
    """Of what, in words: updates, images, rows, stages."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Such as the reward; name -> value."""
    at: str = ""
    """When it was written, in UTC."""


@dataclass(frozen=True)
class State:
    """A run, as seen from outside."""

    name: str
    progress: Progress
    says: str
    """`complete`, `running` or `stopped`; `damaged`, of a run whose files cannot be read."""
    who: str | None
    """The driver that works on it, in words."""
    where: str
    """Its directory."""


class StateFile:
    """Writes a run's progress, not too often.

    Args:
        run: its directory.
        command: that works on it.
    """

    def __init__(self, run: RunDirectory, command: str) -> None:
        self._run, self._command = run, command
        self._written = -EVERY

    def write(self, done: int, total: int, unit: str, **numbers: float) -> None:
        """Say how far it is. A storage that is away for a moment is no reason to stop a run for."""
        now = time.monotonic()
        if now - self._written < EVERY and done < total:
            return
        at = datetime.now(UTC).isoformat(timespec="seconds")
        progress = Progress(self._command, done, total, unit, numbers, at)
        try:
            self._run.write_json(FILE, asdict(progress))
        except OSError:
            return
        self._written = now


def state_of(run: RunDirectory) -> State | None:
    """What is known of a run; None where there is none."""
    try:
        settings = run.read_json(SETTINGS)
        if settings is None:
            return None
        progress = _progress(run.read_json(FILE), settings)
    except SettingsError:
        return State(run.name, Progress("?"), "damaged", None, run.uri)
    last = COMPLETE_WITH.get(progress.command)
    if last is not None and run.has(last):
        return State(run.name, progress, "complete", None, run.uri)
    who = holder(run)
    return State(run.name, progress, "stopped" if who is None else "running", who, run.uri)


def states_in(storage: str) -> Iterator[State]:
    """Every run of a storage, by name.

    Raises:
        SettingsError: it cannot be read.
    """
    place = RunDirectory(storage, "")
    try:
        found = place.filesystem.get_file_info(fs.FileSelector(place.path.rstrip("/"), allow_not_found=True))
    except OSError as error:
        got = f"{storage!r} cannot be read: {str(error).splitlines()[0]}"
        raise SettingsError(Problem("run.storage", got, fix="correct it, or the access to it")) from None
    for info in sorted(found, key=lambda info: info.base_name):
        if (
            info.type == fs.FileType.Directory
            and (state := state_of(RunDirectory(storage, info.base_name))) is not None
        ):
            yield state


def _progress(written: dict[str, Any] | None, settings: dict[str, Any]) -> Progress:
    if written is not None:
        return Progress(**written)
    return Progress(next((command for section, command in KNOWN_BY.items() if section in settings), "?"))

"""What a cycle has done so far: enough to go on where it stopped, and to tell a scheduler how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory

FILE, SUMMARY = "cycle.json", "summary.json"


class StageFailed(RuntimeError):
    """A stage of a cycle failed, after others had begun.

    Attributes:
        stage: its name.
        why: in words.
    """

    def __init__(self, stage: str, why: str) -> None:
        super().__init__(stage, why)
        self.stage, self.why = stage, why

    def __str__(self) -> str:
        return f"stage {self.stage}: {self.why}"


@dataclass
class Stage:
    """One stage."""

    name: str
    status: Literal["running", "done", "failed"] = "running"
    seconds: float = 0.0
    """Wall-clock time, of all attempts."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What later stages and people need to know: JSON."""


class CycleRecord:
    """The stages, kept in the cycle's directory as they change.

    Args:
        run: the cycle's directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        known = run.read_json(FILE) or {"stages": []}
        self.stages = {stage["name"]: Stage(**stage) for stage in known["stages"]}

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Work on a stage: done at the block's end, failed after an exception; its facts are kept either way.

        Raises:
            StageFailed: what the block refused as bad input, for a cycle that has begun.
        """
        stage = self.stages.setdefault(name, Stage(name))
        began, before = time.monotonic(), stage.seconds
        stage.status = "running"
        self.keep()
        try:
            yield stage
            stage.status = "done"
        except SettingsError as error:
            stage.status = "failed"
            raise StageFailed(name, " ".join(str(error).split())) from error
        except BaseException:
            stage.status = "failed"
            raise
        finally:
            stage.seconds = before + time.monotonic() - began
            self.keep()

    def facts(self, name: str) -> dict[str, Any]:
        """What is known of a stage so far; nothing of one that has not begun."""
        return self.stages[name].facts if name in self.stages else {}

    def keep(self) -> None:
        """Write it."""
        self._run.write_json(FILE, {"stages": [asdict(stage) for stage in self.stages.values()]})


@dataclass(frozen=True)
class Summary:
    """How a cycle ended, for programs."""

    cycle: str
    """Its id."""
    decision: str
    """`promoted` or `refused`."""
    reason: str
    candidate: str
    """`models:/NAME/VERSION`."""
    champion: str | None
    """The champion afterwards."""
    exit_code: int
    mlflow_run_id: str
    stages: list[dict[str, Any]]

    def __str__(self) -> str:
        times = ", ".join(f"{stage['name']} {stage['seconds']:.0f} s" for stage in self.stages)
        return f"{self.cycle}: {self.decision}: {self.reason}\nchampion: {self.champion or 'none'}\n{times}"


def write_summary(run: RunDirectory, summary: Summary) -> str:
    """Mark the cycle as complete; returns the file's place."""
    return run.write_json(SUMMARY, asdict(summary))


def read_summary(run: RunDirectory) -> Summary | None:
    """The summary of a complete cycle, None of any other."""
    known = run.read_json(SUMMARY)
    return None if known is None else Summary(**known)

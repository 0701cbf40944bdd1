"""What a run is called as a job of a Ray cluster: the same run, the same name.

A cluster takes every submission id once. An id made of the run's name and settings therefore makes submitting
idempotent: whoever submits the same again finds the job that is there. One that failed is followed by another attempt.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any, Self

_PATTERN = re.compile(r"(?P<command>[a-z]+)-(?P<name>.+)-(?P<digest>[0-9a-f]{8})(-attempt-(?P<attempt>[0-9]+))?")


@dataclass(frozen=True)
class JobName:
    """One attempt at one run."""

    command: str
    """Of `sdo`."""
    name: str
    """Of the run."""
    digest: str
    """Of the settings, 8 hexadecimal digits."""
    attempt: int = 1
    """From 1."""

    @classmethod
    def of(cls, command: str, settings: dict[str, Any], otherwise: str) -> Self:
        """The first attempt at a run.

        Args:
            command: of `sdo`.
            settings: as read from YAML, overrides included.
            otherwise: the name of settings without `run.name`.
        """
        section = settings.get("run")
        named = section.get("name") if isinstance(section, dict) else None
        text = json.dumps(settings, sort_keys=True, default=str)
        return cls(command, str(named or otherwise), hashlib.sha256(text.encode()).hexdigest()[:8])

    @classmethod
    def parse(cls, submission_id: str | None) -> Self | None:
        """The inverse of `str`; None for an id that is not of this form."""
        found = _PATTERN.fullmatch(submission_id or "")
        if found is None:
            return None
        return cls(found["command"], found["name"], found["digest"], int(found["attempt"] or 1))

    def __str__(self) -> str:
        suffix = f"-attempt-{self.attempt}" if self.attempt > 1 else ""
        return f"{self.command}-{self.name}-{self.digest}{suffix}"

    def same_run(self, other: JobName) -> bool:
        """Whether both write to the directory of one run, be it with other settings."""
        return (self.command, self.name) == (other.command, other.name)

    def same_settings(self, other: JobName) -> bool:
        """Whether they are attempts at the same."""
        return self.same_run(other) and self.digest == other.digest

    def next(self) -> Self:
        """The attempt after this one."""
        return replace(self, attempt=self.attempt + 1)

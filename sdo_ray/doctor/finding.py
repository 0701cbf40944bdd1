"""What a check of the machine finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    """Works, but slower or less far than it could."""
    PROBLEM = "problem"
    """A run will fail on it."""


@dataclass(frozen=True)
class Finding:
    """One check's answer."""

    subject: str
    """What was looked at."""
    level: Level
    says: str
    """What is there."""
    mend: str = ""
    """How to mend it; empty if there is nothing to mend."""

    def __str__(self) -> str:
        return f"{self.level.value:<8} {self.subject}: {self.says}" + (f". To mend: {self.mend}" if self.mend else "")


Check = Callable[[], Finding]
"""Looks at one thing. The first line of its docstring, without the full stop, is the subject if it breaks."""


def run_check(check: Check) -> Finding:
    """The check's finding; a check that breaks is a problem by itself and stops no other."""
    try:
        return check()
    except Exception as error:
        subject = (check.__doc__ or check.__name__).splitlines()[0].rstrip(".")
        cause = " ".join(str(error).split())[:200]
        return Finding(subject, Level.PROBLEM, f"could not be checked: {type(error).__name__}: {cause}")


def ok(subject: str, says: str) -> Finding:
    """All is well."""
    return Finding(subject, Level.OK, says)


def warning(subject: str, says: str, mend: str) -> Finding:
    """It works, with a limit."""
    return Finding(subject, Level.WARNING, says, mend)


def problem(subject: str, says: str, mend: str) -> Finding:
    """A run will fail on it."""
    return Finding(subject, Level.PROBLEM, says, mend)

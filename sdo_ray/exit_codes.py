"""How a command ends, for scripts and schedulers."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of all commands; docs/operations.md says what each asks of a scheduler."""

    OK = 0
    STOPPED = 1
    """The work began and could not end."""
    BAD_INPUT = 2
    """Nothing was started, because of settings, flags or a service that does not answer."""
    REFUSED = 3
    """The rules of promotion say no."""
    BUSY = 4
    """Another driver works on the same run."""
    UNAVAILABLE = 69
    """The cluster does not answer any more, as sysexits.h has it."""
    UNFINISHED = 75
    """The job has not ended: ask again later, as sysexits.h has it."""
    INTERRUPTED = 130
    """By Ctrl-C, or a job that was stopped, as shells have it."""

"""What goes wrong in a dry batch, as a problem of a setting."""

from __future__ import annotations

from sdo_ray.settings import Problem

OFF = "or, if the run would do better than this tiny batch, give training.dry_batch: false"
"""What to do about a problem that is one of the batch alone."""


FIX = f"change it, {OFF}"


def problem(setting: str, got: str, error: Exception, fix: str = FIX) -> Problem:
    """An exception, said of a setting."""
    return Problem(setting, f"{got}: {line(error)}", fix=fix)


def line(error: Exception) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())[:300].rstrip(".")
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"

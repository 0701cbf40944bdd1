"""On a terminal, a bar below what a command prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Move = Callable[[int], None]
"""Says how much is done."""


@contextmanager
def bar(total: int, unit: str) -> Iterator[Move]:
    """Show how much is done, and the time that it takes, as long as the block lasts; lines printed meanwhile are above.

    Where standard output is no terminal there is none: lines are what a log is made of.

    Args:
        total: all there is to do.
        unit: of it, such as updates.
    """
    if not sys.stdout.isatty():
        yield lambda _: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn())
    with Progress(*columns) as shown:
        task = shown.add_task(unit, total=total)
        yield lambda done: shown.update(task, completed=done)

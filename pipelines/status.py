"""The runs of a storage and how far each is: `sdo status [STORAGE] [--json]`, or `sdo ls`.

A storage is what `run.storage` names, by default `runs`: a directory, or a URI such as s3://bucket/path.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipelines.job import ended, quiet
from sdo_ray.exit_codes import ExitCode

if TYPE_CHECKING:
    from sdo_ray.driver.state import State


def as_table(states: Iterable[State]) -> str:
    """A line a run, in columns."""
    rows = [("run", "command", "state", "done", "reward", "last heard (UTC)", "where"), *map(_row, states)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _row(state: State) -> tuple[str, ...]:
    progress = state.progress
    done = f"{progress.done}/{progress.total} {progress.unit}" if progress.total else "-"
    reward = f"{progress.numbers['reward']:.3g}" if "reward" in progress.numbers else "-"
    says = state.says if state.who is None else f"{state.says} ({state.who})"
    return state.name, progress.command, says, done, reward, progress.at.removesuffix("+00:00") or "-", state.where


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    quiet()
    parser = argparse.ArgumentParser(
        prog="sdo status", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("storage", metavar="STORAGE", nargs="?", default="runs", help="directory or URI; %(default)s")
    parser.add_argument("--json", action="store_true", help="for programs: a list, an object a run")
    given = parser.parse_args(arguments)

    def show() -> int:
        # Not at the top: what only prints the help does not wait for it.
        from sdo_ray.driver.state import states_in

        states = list(states_in(given.storage))
        if given.json:
            print(json.dumps([asdict(state) for state in states], indent=2))
        elif states:
            print(as_table(states))
        else:
            print(f"there are no runs in {given.storage}")
        return ExitCode.OK

    return ended("status", show)


if __name__ == "__main__":
    sys.exit(main())

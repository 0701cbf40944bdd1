"""The `sdo` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipelines.commands import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `sdo COMMAND ...`, which is `python -m pipelines.COMMAND ...`; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in COMMANDS:
        command = COMMANDS[given[0]]
        if command.own_line:
            code: int = command.driver().main(given[1:])
            return code
        from pipelines.job import run_job

        return run_job(given[0], given[1:])
    asked = not given or given[0] in ("-h", "--help")
    out = sys.stdout if asked else sys.stderr
    if not asked:
        print(f"sdo: there is no command {given[0]!r}", file=out)
    lines = (f"  {name:<9} {command.summary}" for name, command in COMMANDS.items())
    print("usage: sdo COMMAND ...\n", *lines, sep="\n", file=out)
    print("\n`sdo COMMAND --help` says more.", file=out)
    return 0 if asked else 2

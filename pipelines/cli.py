"""The `sdo` command."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib.metadata import version

from pipelines.commands import ALIASES, COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `sdo COMMAND ...`, which is `python -m pipelines.COMMAND ...`; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in ALIASES:
        given[0] = ALIASES[given[0]]
    if given and given[0] in COMMANDS:
        command = COMMANDS[given[0]]
        if command.own_line:
            code: int = command.driver().main(given[1:])
            return code
        from pipelines.job import run_job

        return run_job(given[0], given[1:])
    if given and given[0] in ("-V", "--version"):
        print(f"sdo-ray {version('sdo-ray')}")
        return 0
    asked = not given or given[0] in ("-h", "--help")
    out = sys.stdout if asked else sys.stderr
    if not asked:
        close = difflib.get_close_matches(given[0], [*COMMANDS, *ALIASES], n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        print(f"sdo: there is no command {given[0]!r}{meant}", file=out)
    lines = (f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
    print("usage: sdo COMMAND ...\n", *lines, sep="\n", file=out)
    print("\n`sdo COMMAND --help` says more.", file=out)
    return 0 if asked else 2

"""The `sdo` command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "align": "align a model with rewards",
    "fidelity": "compare gradient estimators with full backpropagation",
    "promote": "make an evaluated model the champion, if it passes the rules; or take it back",
    "cycle": "prepare prompts, align, evaluate and promote, as one job",
    "evaluate": "compare models on held-out prompts, and make a page of it",
    "optimize": "optimise single images against rewards, the model frozen",
    "sample": "make images with a base or aligned model",
    "pretrain": "train a small text-to-image model from a parquet of images and captions",
    "submit": "run a command as a job of a Ray cluster",
    "doctor": "check this machine and say how to mend what is found",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `sdo COMMAND ...`, which is `python -m pipelines.COMMAND ...`; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in COMMANDS:
        # Imported only now, so that each command loads only what it needs.
        code: int = importlib.import_module(f"pipelines.{given[0]}").main(given[1:])
        return code
    asked = not given or given[0] in ("-h", "--help")
    out = sys.stdout if asked else sys.stderr
    if not asked:
        print(f"sdo: there is no command {given[0]!r}", file=out)
    print("usage: sdo COMMAND ...\n", *(f"  {name:<9} {what}" for name, what in COMMANDS.items()), sep="\n", file=out)
    print("\n`sdo COMMAND --help` says more.", file=out)
    return 0 if asked else 2

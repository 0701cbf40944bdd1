"""Policy-gradient estimators on the embedded model: how near to the gradient, and what is learned, for how much work.

    python -m benchmarks.black_box gradients                        a reward that has a gradient, as if it had none
    python -m benchmarks.black_box learning --out RESULTS.jsonl     rewards learned for equal work, on held-out prompts
    python -m benchmarks.black_box table RESULTS.jsonl

Work is counted in rows of denoiser calls, guidance included: forward passes, and backward passes as two. `learning`
goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.black_box.gradients import gradients
from benchmarks.black_box.learning import LESSONS, learning, table
from benchmarks.black_box.runs import PLANS, Setting
from benchmarks.estimators import HELDOUT, TRAIN, read_lines
from benchmarks.learning import heldout_prompts
from sdo_ray.prompts.read import read_prompts


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    given = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    if given.what == "table":
        print(table(read_lines(Path(given.file))))
        return 0
    setting = Setting(given.steps, given.guidance, 8, given.learning_rate)
    prompts = read_prompts(given.train)
    if given.what == "gradients":
        gradients(setting, given.plans, given.reward, prompts[: given.prompts], given.draws)
    else:
        heldout = heldout_prompts(given.heldout_file, given.heldout)
        learning(setting, given.lessons, prompts, heldout, given.seeds, given.rows, Path(given.out))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.black_box",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, dest="what")
    compared = commands.add_parser("gradients", help="cosine with the true gradient")
    compared.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS))
    compared.add_argument("--reward", default="preference", help="(default: %(default)s)")
    compared.add_argument("--prompts", type=int, default=2, help="of a batch (default: %(default)s)")
    compared.add_argument("--draws", type=int, default=16, help="batches of each (default: %(default)s)")
    learned = commands.add_parser("learning", help="held-out scores after equal work")
    learned.add_argument("--lessons", nargs="+", choices=LESSONS, default=list(LESSONS))
    learned.add_argument("--rows", type=int, default=4_000, help="of work (default: %(default)s)")
    learned.add_argument("--seeds", type=int, default=3, help="(default: %(default)s)")
    learned.add_argument("--heldout", type=int, default=32, help="held-out prompts (default: %(default)s)")
    learned.add_argument("--heldout-file", default=HELDOUT)
    learned.add_argument("--out", required=True, help="results file, JSON lines")
    for command, steps in ((compared, 10), (learned, 6)):
        command.add_argument("--train", default=TRAIN, help="parquet with the prompts")
        command.add_argument("--steps", type=int, default=steps, help="sampling steps N (default: %(default)s)")
        command.add_argument("--guidance", type=float, default=3.0, help="(default: %(default)s)")
        command.add_argument("--learning-rate", type=float, default=3e-3, help="of AdamW (default: %(default)s)")
    shown = commands.add_parser("table", help="what a results file has")
    shown.add_argument("file")
    return parser


if __name__ == "__main__":
    sys.exit(main())

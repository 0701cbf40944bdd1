"""Clean a file of prompts and hold some out: `sdo prepare FILE --out DIR [--model MODEL] [--set NAME=VALUE]`.

    FILE -> DIR/train.parquet, DIR/heldout.parquet, and DIR/dropped.parquet with each that is dropped and why

FILE is .csv, .tsv, .json, .jsonl or .txt, any of them also as .gz, or parquet. Text gets one spelling; prompts that are
empty, too long, blocked, held out elsewhere or there twice are dropped. A prompt's own text decides its side, so that
it stays there when the file grows. --set changes what docs/configuration.md lists under `prompts` of `sdo cycle`, as in
--set column=caption --set heldout=0.2 --set 'blocked=[nude]'; relative paths start at the working directory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.job import add_set, new_directory, printed, quiet
from sdo_ray.settings import at


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    quiet()
    given = _parser().parse_args(arguments)
    return printed("prepare", lambda: prepare_file(given))


def prepare_file(given: argparse.Namespace) -> Iterator[str]:
    """Read, clean, split and write.

    Args:
        given: the parsed command line.

    Yields:
        What was done.

    Raises:
        SettingsError: before anything is written, if it cannot work.
    """
    from sdo_ray.config.loading import override, validated
    from sdo_ray.prompts.prepare import DROPPED, HELDOUT, TRAIN, prepare
    from sdo_ray.prompts.settings import PreparationSettings
    from sdo_ray.storage import RunDirectory

    out = new_directory("--out", given.out)
    changes: dict[str, Any] = {}
    override(changes, given.overrides)
    settings = validated(PreparationSettings, changes | {"source": given.source})
    tokenizers = _tokenizers(given.model)
    done = prepare(settings, RunDirectory.at(str(out.resolve())))
    yield str(done)
    for name, place in (("to train on", done.train), ("held out", done.heldout)):
        yield from _too_long(name, place, tokenizers)
    yield f"written: {out / TRAIN}, {out / HELDOUT}; what was dropped, and why: {out / DROPPED}"


def _tokenizers(model: str | None) -> dict[str, Any]:
    """The model's that prompts are counted by; none without a model."""
    if model is None:
        return {}
    from sdo_ray.models.load import check_base
    from sdo_ray.models.tokens import tokenizers_of

    with at("--model"):
        check_base(model)
        return tokenizers_of(model)


def _too_long(name: str, place: str, tokenizers: dict[str, Any]) -> Iterator[str]:
    """What to say of prompts of which the model reads a part."""
    if not tokenizers:
        return
    from sdo_ray.models.tokens import what_is_cut
    from sdo_ray.prompts.read import read_prompts

    if (said := what_is_cut(tokenizers, read_prompts(place))) is not None:
        yield f"of the prompts {name} {said}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdo prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", metavar="FILE", help="the prompts; in a column `prompt`, if --set column=NAME says no other")
    add("--out", required=True, metavar="DIR", help="where to write; a new directory")
    add("--model", help="says which prompts are longer than this model reads: `zoo://NAME`, a directory or a hub id")
    add_set(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())

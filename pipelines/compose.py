"""Put a base model together, to align, evaluate or draw with: `sdo compose --model MODEL --out DIR [...]`.

Its weights may be those of a single file, as ComfyUI and A1111 have them. Adapters that there are already go into the
weights, and it may get another autoencoder or scheduler and learned words. What is written is a model in diffusers
format, for `model.base`. A LoRA that is trained on it is used on it, or on the first model beside the same adapters.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.job import new_directory, printed, quiet
from sdo_ray.settings import Problem, SettingsError, at


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    quiet()
    given = _parser().parse_args(arguments)
    return printed("compose", lambda: compose(given))


def compose(given: argparse.Namespace) -> Iterator[str]:
    """Load, change and write the model.

    Args:
        given: the parsed command line.

    Yields:
        What was done.

    Raises:
        SettingsError: before anything is written, if it cannot work.
    """
    from sdo_ray.config.loading import override
    from sdo_ray.models.compose import (
        add_words,
        fuse_adapter,
        load_single_file,
        replace_autoencoder,
        replace_scheduler,
    )
    from sdo_ray.models.files import check_files
    from sdo_ray.models.load import check_base, load_pipeline
    from sdo_ray.models.quiet import quiet_libraries

    out = new_directory("--out", given.out)
    adapters = [(place, _number(weight)) for place, weight in map(_pair, given.adapters)]
    options: dict[str, Any] = {}
    override(options, given.options)
    with at("--model"):
        check_base(given.model)
        if given.single_file is None:
            check_files(given.model)
    if given.single_file is None:
        with at("--model"):
            pipeline = load_pipeline(given.model, given.dtype)
    else:
        pipeline = load_single_file(given.single_file, given.model, given.dtype)
        yield f"the weights are those of {given.single_file}"
    for place, weight in adapters:
        with at("--adapter"):
            fuse_adapter(pipeline, place, weight)
        yield f"adapter {place}, {weight:g} times, is in the weights"
    if given.vae is not None:
        replace_autoencoder(pipeline, given.vae)
        yield f"the autoencoder is {given.vae}'s"
    if given.scheduler is not None or options:
        replace_scheduler(pipeline, given.scheduler, options)
        changed = "".join(f", {name} = {value!r}" for name, value in options.items())
        yield f"the scheduler is {type(pipeline.scheduler).__name__}{changed}"
    for place, word in map(_pair, given.embeddings):
        yield f"prompts may have the word {add_words(pipeline, place, word)!r}"
    with quiet_libraries():
        pipeline.save_pretrained(out)
    yield f"{out}: a {type(pipeline).__name__} in {given.dtype}"


def _pair(text: str) -> tuple[str, str | None]:
    """`PLACE=VALUE` in its parts; a place may have an = where it exists as it is."""
    place, equals, value = text.rpartition("=")
    return (place, value) if equals and not Path(text).expanduser().exists() else (text, None)


def _number(text: str | None) -> float:
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        raise SettingsError(Problem("--adapter", f"its weight is {text!r}", "it is a number, as in FILE=0.8")) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdo compose", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="`zoo://NAME`, a directory in diffusers format, or a hub id such as org/name")
    add(
        "--single-file",
        metavar="FILE",
        help="a .safetensors checkpoint of ComfyUI or A1111, whose weights are taken; --model names its architecture",
    )
    add("--out", required=True, metavar="DIR", help="where to write the model; a new directory")
    add(
        "--adapter",
        metavar="FILE[=WEIGHT]",
        action="append",
        default=[],
        dest="adapters",
        help="a LoRA that diffusers loads, how many times (default: 1); repeatable",
    )
    add("--vae", metavar="PLACE", help="directory or hub id of an autoencoder, or of a model that has it")
    add("--scheduler", metavar="CLASS", help="of diffusers, such as DDIMScheduler; it keeps the model's configuration")
    add(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="options",
        help="of the scheduler's configuration, such as timestep_spacing=trailing; repeatable",
    )
    add(
        "--embedding",
        metavar="FILE[=WORD]",
        action="append",
        default=[],
        dest="embeddings",
        help="a learned word (textual inversion) and its name in prompts (default: that of the file); repeatable",
    )
    add(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="type of the weights that are written (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

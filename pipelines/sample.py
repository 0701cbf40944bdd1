"""Make images, videos or sounds: `sdo sample --model MODEL [--adapter DIR] --prompt TEXT --out DIR`.

The model is a base or an aligned one. Plain diffusers in one process, without Ray: what this draws, so does any
program that loads the same files. A model of MLflow's registry, such as `models:/emoji-glossy@champion`, is drawn with
as it was evaluated, unless told otherwise.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.job import ended, quiet
from sdo_ray.exit_codes import ExitCode
from sdo_ray.registry.recipe import Recipe
from sdo_ray.secrets import read_secret_files, take_credentials_from_tracking_uri
from sdo_ray.settings import Problem, Problems, SettingsError, at, under

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from sdo_ray.rollout.settings import SamplingSettings

DEFAULTS = Recipe(num_inference_steps=20, guidance_scale=3.0)
"""How a model is called that says nothing about it."""
OTHERS = (".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".wav")
"""Endings that nobody gives a directory."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    quiet()
    given = _parser().parse_args(arguments)

    def job() -> int:
        for path in sample(given):
            print(path)
        return ExitCode.OK

    return ended("sample", job)


def sample(given: argparse.Namespace) -> list[Path]:
    """Draw and write the samples.

    Args:
        given: the parsed command line.

    Returns:
        The files written: one for each prompt and the contact sheet, or the one file that was asked for.

    Raises:
        SettingsError: before anything is drawn, if it cannot work.
    """
    prompts = _prompts(given)
    _check(given)
    import torch

    from sdo_ray.config.calls import check_inputs, check_options, takes_guidance
    from sdo_ray.config.loading import validated
    from sdo_ray.media.files import SUFFIXES, to_file
    from sdo_ray.media.modality import modality_of, sampling_rate
    from sdo_ray.media.picture import picture
    from sdo_ray.models.adapter_file import load_adapter
    from sdo_ray.models.files import check_files
    from sdo_ray.models.load import load_pipeline
    from sdo_ray.models.tokens import what_is_cut
    from sdo_ray.prompts.inputs import read_inputs
    from sdo_ray.rollout.contact_sheet import grid
    from sdo_ray.rollout.preparation import runner_of, set_decoding
    from sdo_ray.rollout.sampling import draw
    from sdo_ray.rollout.settings import SamplingSettings

    model, adapter, recipe = _find(given)
    asked: dict[str, Any] = {
        "num_inference_steps": recipe.num_inference_steps if given.steps is None else given.steps,
        "guidance_scale": recipe.guidance_scale if given.guidance is None else given.guidance,
        "options": recipe.options | _options(given),
        "decode": recipe.decode,
    }
    sampling = validated(SamplingSettings, asked | _cheap_steps(given, recipe))
    if absent := [name for name in recipe.inputs if name not in given.columns]:
        got = f"{given.model!r} draws from {', '.join(recipe.inputs)} beside a prompt, and no column has {absent[0]}"
        fix = f"give --prompts FILE with such columns, and {' '.join(f'--input {name}=COLUMN' for name in absent)}"
        raise SettingsError(Problem("--input", got, fix=fix))
    batch_size = given.batch_size or recipe.batch_size
    if given.device == "cuda" and not torch.cuda.is_available():
        fix = "`sdo doctor` says why; or use --device cpu"
        raise SettingsError(Problem("--device", "got cuda, but torch sees no GPU", fix=fix))
    with at("--model"):
        check_files(model)
        types = None if given.dtype else recipe.dtypes
        pipeline = load_pipeline(model, given.dtype or recipe.dtype, given.device, types)
        set_decoding(pipeline, sampling.decode)
    if not takes_guidance(type(pipeline)):
        if given.guidance is not None:
            got = f"got {given.guidance:g}, and the call of a {type(pipeline).__name__} takes none"
            raise SettingsError(Problem("--guidance", got, fix="leave it out"))
        sampling = sampling.model_copy(update={"guidance_scale": None})
    with _options_at("--set"):
        check_options(type(pipeline), sampling)
    with at("--input"):
        check_inputs(type(pipeline), given.columns, sampling)
    with at("--prompts"):
        inputs = read_inputs(given.prompts, given.column, given.columns, batch_size=batch_size)[: given.limit]
    sampling = sampling.with_example_of(inputs)
    if adapter is not None:
        with at("--adapter"):
            load_adapter(pipeline, adapter)
    runner = runner_of(pipeline, sampling)
    for said in (what_is_cut(pipeline.components, texts) for texts in (prompts, *sampling.negative_prompts.values())):
        if said is not None:
            print(f"sdo sample: of the prompts {said}", file=sys.stderr, flush=True)

    samples: list[torch.Tensor] = []
    for first in range(0, len(prompts), batch_size):
        batch = prompts[first : first + batch_size]
        # CPU generators, so that the noise is the same on every device.
        noise = [torch.Generator().manual_seed(given.seed + first + i) for i in range(len(batch))]
        call = sampling.pipeline_call(batch, inputs[first : first + batch_size])
        try:
            samples += draw(pipeline, call, noise, runner, checked=True)
        except Exception:
            if not first:
                _check_call(pipeline, sampling, batch)
            raise  # it was not how it was called
    modality = modality_of(type(pipeline))
    for said in _said_of(samples, getattr(pipeline, "safety_checker", None) is not None):
        print(f"sdo sample: {said}", file=sys.stderr, flush=True)
    sheet = grid([picture(x, modality) for x in samples])

    out = Path(given.out).expanduser()
    if out.suffix.lower() == ".png":
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)
        return [out]
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{i:03d}_{_readable(prompt)}{SUFFIXES[modality]}" for i, prompt in enumerate(prompts)]
    rate = sampling_rate(pipeline) if modality == "audio" else None
    for file, x in zip(files, samples, strict=True):
        file.write_bytes(to_file(x, modality, rate))
    sheet.save(out / "sheet.png")
    return [*files, out / "sheet.png"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdo sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--model",
        required=True,
        help="`zoo://NAME`, a directory in diffusers format, a hub id such as org/name, or `models:/NAME@champion` or "
        "`models:/NAME/VERSION` of MLflow's registry, which brings its adapter and the defaults below",
    )
    add("--adapter", metavar="DIR", help="aligned adapter: a directory or .safetensors file that diffusers loads")
    add("--prompt", metavar="TEXT", action="append", default=[], dest="texts", help="what to draw; repeatable")
    add("--prompts", metavar="FILE", help="file with more prompts: .parquet, .csv, .tsv, .json, .jsonl or .txt")
    add("--column", default="prompt", help="its column that holds them (default: %(default)s)")
    add(
        "--input",
        metavar="NAME=COLUMN",
        action=_Columns,
        default={},
        dest="columns",
        help="argument of the pipeline's call, such as image, that comes from a column of --prompts, as in "
        "`prompts.inputs` of a settings file; repeatable",
    )
    add("--limit", metavar="N", type=int, help="take its first N prompts (default: all)")
    add(
        "--out",
        required=True,
        metavar="DIR_OR_PNG",
        help="directory for one PNG (of a video an animated WebP, of a sound a WAV) a prompt and a contact sheet; or a "
        ".png file for the sheet alone, "
        "which for one prompt is the image",
    )
    add(
        "--seed", type=int, default=0, help="prompt i, counted from 0, has noise of its own, from seed + i (default: 0)"
    )
    add("--steps", type=int, help=f"sampling steps (default: {DEFAULTS.num_inference_steps})")
    add("--guidance", type=float, help=f"classifier-free guidance (default: {DEFAULTS.guidance_scale})")
    add("--height", metavar="PIXELS", type=int, help="of the images (default: the model's)")
    add("--width", metavar="PIXELS", type=int, help="likewise")
    add("--negative-prompt", metavar="TEXT", help="what no image is to show")
    add(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="arguments",
        help="any further argument of the pipeline's call, as in `sampling.options` of a settings file; repeatable",
    )
    add(
        "--cache",
        metavar="NAME",
        help="`sampling.cache` of a settings file: a name such as `taylor`, or `{name: taylor, every: 2}`; `null` for "
        "none (default: the model's)",
    )
    add(
        "--fast-copy",
        metavar="TYPE",
        help="`sampling.fast_copy`, such as `bfloat16` or `{dtype: bfloat16, quantize: int8}`; `null` for none "
        "(default: the model's)",
    )
    add("--dtype", choices=("float32", "bfloat16", "float16"), help=f"precision (default: {DEFAULTS.dtype})")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default: %(default)s)")
    add("--batch-size", type=int, help=f"images made at once (default: {DEFAULTS.batch_size})")
    return parser


class _Columns(argparse.Action):
    """NAME=COLUMN, repeatable, as a dict."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, value: Any, option: str | None = None) -> None:
        name, sign, column = value.partition("=")
        if not (name and sign and column):
            parser.error(f"{option}: got {value!r}; it is NAME=COLUMN")
        setattr(namespace, self.dest, getattr(namespace, self.dest) | {name: column})


def _find(given: argparse.Namespace) -> tuple[str, str | None, Recipe]:
    """Where the pipeline is, its adapter, and how it is called unless told otherwise."""
    from sdo_ray.registry.versions import (
        adapter_beside,
        is_registered,
        recipe_beside,
        reference_of,
        resolve_model,
    )
    from sdo_ray.tracking.server import check_server, registry_uri

    if not is_registered(given.model):
        return given.model, given.adapter, DEFAULTS
    if given.adapter is not None:
        raise SettingsError(Problem("--adapter", f"{given.model!r} brings its own", fix="leave it out"))
    read_secret_files()
    take_credentials_from_tracking_uri()
    check_server(uri := registry_uri())
    with under("--model"):
        pipeline = resolve_model(given.model, uri)
    adapter = adapter_beside(pipeline)
    return reference_of(pipeline), None if adapter is None else str(adapter), recipe_beside(pipeline)


def _options(given: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the pipeline's call."""
    from sdo_ray.config.loading import override

    options: dict[str, Any] = {}
    override(options, given.arguments)
    named = {name: getattr(given, name) for name in ("height", "width", "negative_prompt")}
    return options | {name: value for name, value in named.items() if value is not None}


def _cheap_steps(given: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """`cache` and `fast_copy`: how steps are made that are not computed by the model alone."""
    from sdo_ray.cheap_steps.settings import CacheSettings, CopySettings
    from sdo_ray.config.loading import validated
    from sdo_ray.config.strict_yaml import NotYaml, parse

    made = {}
    for name, kind in (("cache", CacheSettings), ("fast_copy", CopySettings)):
        value, text = getattr(recipe, name), getattr(given, name)
        with under(f"--{name.replace('_', '-')}"):
            try:
                value = value if text is None else parse(text)
            except NotYaml as error:
                raise SettingsError(Problem("", f"got {text!r}, which is no YAML: {error}")) from None
            made[name] = None if value is None else validated(kind, value)
    return made


def _check_call(pipeline: DiffusionPipeline, sampling: SamplingSettings, prompts: Sequence[str]) -> None:
    """Refuse arguments that the pipeline's call cannot have, or lacks."""
    from sdo_ray.dry_batch.calls import check_call

    with _options_at("--set, --input"):
        check_call(pipeline, sampling, prompts, "change it", "--input NAME=COLUMN")


@contextmanager
def _options_at(others: str) -> Iterator[None]:
    """Within the block, problems of `sampling.options.NAME` are said of `--set NAME`, others of `others`."""
    try:
        yield
    except SettingsError as error:
        options = ((one, one.setting.removeprefix("sampling.options.")) for one in error.problems)
        places = [(one, f"--set {name}" if name != one.setting else others) for one, name in options]
        raise SettingsError(*(one.at(place) for one, place in places)) from None


def _said_of(samples: Sequence[torch.Tensor], is_checked: bool) -> Iterator[str]:
    """What a black picture does not say itself."""
    if broken := sum(not x.isfinite().all() for x in samples):
        yield f"{broken} of {len(samples)} are not finite: try another --dtype, and see that the weights are whole"
    if is_checked and (black := sum(not x.any() for x in samples)):
        yield f"{black} of {len(samples)} are black, which is how the model's safety checker leaves what it objects to"


def _prompts(given: argparse.Namespace) -> list[str]:
    from sdo_ray.prompts.read import read_prompts

    if given.columns and (given.texts or given.prompts is None):
        got = "given, but a --prompt has no columns" if given.texts else "given, but no file"
        raise SettingsError(Problem("--input", got, fix="give the prompts by --prompts FILE"))
    if empty := [text for text in given.texts if not text.strip()]:
        raise SettingsError(Problem("--prompt", f"got {empty[0]!r}, which says nothing", fix="give words"))
    prompts = list(given.texts)
    if given.prompts is not None:
        with under("--prompts"):
            prompts += read_prompts(given.prompts, given.column)[: given.limit]
    if not prompts:
        raise SettingsError(Problem("--prompt, --prompts", "got neither", fix="give at least one prompt"))
    return prompts


def _check(given: argparse.Namespace) -> None:
    with Problems() as problems:
        for name, least in (
            ("steps", 1),
            ("guidance", 0),
            ("batch_size", 1),
            ("limit", 1),
            ("seed", 0),
            ("height", 1),
            ("width", 1),
        ):
            if (value := getattr(given, name)) is not None and value < least:
                problems.add(Problem(f"--{name.replace('_', '-')}", f"got {value}", f"it is {least} or more"))
        out = Path(given.out).expanduser()
        if out.suffix.lower() != ".png" and (out.is_file() or out.suffix.lower() in OTHERS):
            got = f"{given.out!r} is {'a file' if out.is_file() else 'of a kind that is not written'}"
            problems.add(Problem("--out", got, "it is a directory, or ends in .png", "name another"))


def _readable(prompt: str) -> str:
    """The prompt as part of a file name."""
    return re.sub(r"\W+", "_", prompt).strip("_")[:60] or "picture"


if __name__ == "__main__":
    sys.exit(main())

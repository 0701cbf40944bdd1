"""Write a finished run's model for the programs that people use it in: `sdo export RUN [--format FORMAT] [--out DIR]`.

diffusers  the LoRA for `pipe.load_lora_weights`
kohya      the LoRA for ComfyUI, A1111, Forge and Kohya's scripts, at its true strength
merged     a complete model for `from_pretrained`, the LoRA in its weights

Beside them are a model card and images. Each is loaded into plain diffusers again and draws a held-out prompt: one that
draws the base model's image is no result, and the command fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.job import printed, quiet
from sdo_ray.settings import Problem, SettingsError, at

if TYPE_CHECKING:
    from sdo_ray.config.align import AlignSettings
    from sdo_ray.evaluation.outcome import Outcome
    from sdo_ray.export.card import CardFacts
    from sdo_ray.export.check import Draw
    from sdo_ray.export.formats import Aligned, Format
    from sdo_ray.rollout.reward_settings import RewardSettings
    from sdo_ray.settings import Settings
    from sdo_ray.storage import RunDirectory

FORMATS = ("diffusers", "kohya", "merged")
CARD, IMAGES = "README.md", "before_after.png"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    quiet()
    given = _parser().parse_args(arguments)
    return printed("export", lambda: export(given))


def export(given: argparse.Namespace) -> Iterator[str]:
    """Write the formats, the card and images, and look at each.

    Args:
        given: the parsed command line.

    Yields:
        What to say.

    Raises:
        SettingsError: before anything is written, if it cannot work.
        NoEffect: a format has no effect.
    """
    from sdo_ray.config.align import AlignSettings
    from sdo_ray.evaluation.outcome import read_outcome
    from sdo_ray.export.card import model_card
    from sdo_ray.export.check import look_at
    from sdo_ray.export.formats import WRITERS, Aligned
    from sdo_ray.models.adapter_file import FILE
    from sdo_ray.models.export import ADAPTER, MODEL
    from sdo_ray.storage import RunDirectory

    with at("RUN"):
        if Path(given.run).expanduser().is_file():
            got = f"{given.run!r} is a file"
            raise SettingsError(Problem("RUN", got, fix="give the directory of a finished run, such as runs/NAME"))
        run = RunDirectory.at(given.run)
        known, outcome = run.read_json("settings.json"), read_outcome(run)
    if known is None or outcome is None:
        got = f"{run.uri} is no run of `sdo align`" if known is None else f"{run.uri} is not complete"
        raise SettingsError(Problem("RUN", got, fix="give the directory of a finished run, such as runs/NAME"))
    settings = AlignSettings.model_validate(known)
    whole = not run.has(ADAPTER)
    formats: list[Format] = given.formats or (["merged"] if whole else ["diffusers", "kohya"])
    if whole and formats != ["merged"]:
        got = f"the run trained {settings.model.train!r} and handed out a complete model: there is no LoRA"
        raise SettingsError(Problem("--format", got, "`merged` is that model"))
    out = Path(given.out or f"export/{run.name}").expanduser()
    reference = (run.read_json("base.json") or {}).get("reference", settings.model.reference)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        types = settings.model.dtypes
        model = Aligned(run.name, reference, Path(temporary) / FILE, settings.model.dtype, types, given.device)
        if whole:
            written: dict[Format, Path] = {"merged": run.copy_out(MODEL, out / MODEL)}
        else:
            run.copy_out(f"{ADAPTER}/{FILE}", model.adapter)
            written = {form: WRITERS[form](model, out) for form in formats}
        if run.has(IMAGES):
            run.copy_out(IMAGES, out / IMAGES)
        facts = _facts(model, written, settings, outcome, given.trigger, IMAGES if run.has(IMAGES) else None)
        (out / CARD).write_text(model_card(facts))
        yield f"{CARD}: {out / CARD}"
        if given.check:
            yield from look_at(model, written, _drawer(run, settings))
        else:
            yield from (f"{form}: {place}; not loaded again" for form, place in written.items())


def _licence(term: RewardSettings) -> str | None:
    """A reward's, where it is known here; what was learned is handed out on machines without the rewards too."""
    from rewards.registry import RewardError, spec_of

    try:
        spec = spec_of(term.name, term.runtime_env)
    except RewardError:
        return None
    return None if spec is None else spec.licence


def _facts(
    model: Aligned,
    written: Mapping[Format, Path],
    settings: AlignSettings,
    outcome: Outcome,
    trigger: str | None,
    images: str | None,
) -> CardFacts:
    from sdo_ray.evaluation.result import BASE, CANDIDATE
    from sdo_ray.evaluation.summary import as_table
    from sdo_ray.export.card import CardFacts, RewardLine
    from sdo_ray.export.kohya import readers_of
    from sdo_ray.media.modality import modality_of
    from sdo_ray.models.load import ZOO, load_index, pipeline_class, resolve

    call = settings.sampling.pipeline_call(["..."])
    call.pop("prompt")
    rewards = [RewardLine(term.key, term.weight, _licence(term)) for term in settings.rewards.terms if term.weight]
    trained = settings.model.kind_settings
    recipe = {
        "base model": model.base,
        "trained": settings.model.train,
        **({} if trained is None else _chosen(trained)),
        **({"rounded weights": settings.model.quantize} if settings.model.quantize else {}),
        "plan": settings.plan.name,
        **settings.plan.options,
        **{name: getattr(settings.training, name) for name in ("updates", "batch_size", "learning_rate")},
        "prompts": Path(settings.prompts.train).name,
        "seed": settings.run.seed,
    }
    return CardFacts(
        name=model.name,
        base=model.base,
        on_hub=not model.base.startswith(ZOO) and not Path(resolve(model.base)).is_dir(),
        pipeline=pipeline_class(model.base).__name__,
        sampling=call,
        recipe=recipe,
        rewards=rewards,
        results=as_table(outcome.lines, CANDIDATE, BASE),
        files={form: place.name for form, place in written.items()},
        trigger=trigger,
        images=images,
        absent=[name for name, entry in load_index(model.base).items() if entry == [None, None]],
        modality=modality_of(pipeline_class(model.base)),
        **({"readers": readers_of(written["kohya"])} if "kohya" in written else {}),
    )


def _chosen(trained: Settings) -> dict[str, Any]:
    """What a reader of the card has to know: no option that is off, nor a choice that is as it always is."""
    usual = {name: field.default for name, field in type(trained).model_fields.items()}
    found = trained.to_dict().items()
    return {name: value for name, value in found if value and not (isinstance(value, str) and value == usual[name])}


def _drawer(run: RunDirectory, settings: AlignSettings) -> Draw:
    """Draws the first image of the run's comparison, or one of any prompt where that is gone."""
    import pyarrow.parquet as pq

    from sdo_ray.evaluation.outcome import IMAGES as HELD_OUT
    from sdo_ray.rollout.sampling import draw_images

    prompt = "a photograph"
    if run.has(HELD_OUT):
        prompt = pq.read_table(f"{run.path}/{HELD_OUT}", columns=["prompt"], filesystem=run.filesystem)["prompt"][
            0
        ].as_py()
    sampling = settings.called_sampling
    return lambda pipeline: draw_images(pipeline, sampling, settings.run.seed, [prompt], [0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdo export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="directory or URI of a finished run of `sdo align`, such as runs/NAME")
    add(
        "--format",
        choices=FORMATS,
        action="append",
        dest="formats",
        help="repeatable (default: diffusers and kohya; merged for a run that trained more than a LoRA)",
    )
    add("--out", metavar="DIR", help="where to (default: export/NAME)")
    add("--trigger", metavar="WORDS", help="words that prompts are to have, for the model card (default: none)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to draw (default: %(default)s)")
    add(
        "--no-check",
        action="store_false",
        dest="check",
        help="do not load what was written and draw with it, which takes the time and memory of a few images",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Prepare prompts: read, clean, split, and keep what came of each."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet

from sdo_ray.prompts.clean import Dropped, Prompt, clean
from sdo_ray.prompts.read import read_columns, read_prompts
from sdo_ray.prompts.settings import PreparationSettings
from sdo_ray.prompts.split import split
from sdo_ray.settings import Problem, SettingsError, under
from sdo_ray.storage import RunDirectory

TRAIN, HELDOUT, DROPPED, FILE = "train.parquet", "heldout.parquet", "dropped.parquet", "preparation.json"
"""What a preparation leaves; the last is written last, and marks it as complete."""

ENOUGH = 2
"""Prompts that each side needs at least; an interval over prompts takes two."""


@dataclass(frozen=True)
class Preparation:
    """A finished preparation."""

    train: str
    """Parquet with the columns `prompt` and `category`: path or URI."""
    heldout: str
    """The same for judging."""
    read: int
    """Prompts in the source."""
    num_train: int
    num_heldout: int
    dropped: dict[str, int]
    """Reason -> prompts dropped for it; `dropped.parquet` has each with its row in the source."""

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items()) or "none"
        return (
            f"{self.read} prompts read: {self.num_train} to train on, {self.num_heldout} to decide by; "
            f"dropped: {dropped}"
        )


def prepare(settings: PreparationSettings, run: RunDirectory) -> Preparation:
    """Prepare the prompts into the run's directory, once: a complete preparation is read back.

    Raises:
        SettingsError: a file cannot be read, or too few prompts are left on one side.
    """
    if (known := run.read_json(FILE)) is not None:
        return Preparation(**known)
    prompts = _read(settings)
    kept, dropped = clean(prompts, settings, _elsewhere(settings))
    train, heldout = split(kept, settings.heldout, settings.duplicates)
    if min(len(train), len(heldout)) < ENOUGH:
        raise SettingsError(
            Problem(
                "heldout",
                f"of {len(prompts)} prompts in {settings.source!r} {len(kept)} are left, {len(train)} to train on and "
                f"{len(heldout)} to decide by",
                f"each side takes {ENOUGH} or more",
                "give more prompts, or hold out another share",
            )
        )
    counts = Counter(prompt.reason for prompt in dropped)
    places = [_write(run, name, side) for name, side in ((TRAIN, train), (HELDOUT, heldout), (DROPPED, dropped))]
    preparation = Preparation(
        places[0], places[1], len(prompts), len(train), len(heldout), dict(sorted(counts.items()))
    )
    run.write_json(FILE, asdict(preparation))
    return preparation


def _read(settings: PreparationSettings) -> list[Prompt]:
    """Every prompt of the source, as it is."""
    labels = [] if settings.category is None else [settings.category]
    with under("source"):
        table = read_columns(settings.source, [settings.column], labels=labels)
    texts = table[settings.column].to_pylist()
    categories = table[settings.category].to_pylist() if settings.category else [None] * len(texts)
    return [Prompt(row, text, category) for row, (text, category) in enumerate(zip(texts, categories, strict=True))]


def _elsewhere(settings: PreparationSettings) -> list[str]:
    """Prompts that are held out already."""
    if settings.apart_from is None:
        return []
    with under("apart_from"):
        return read_prompts(settings.apart_from, settings.column)


def _write(run: RunDirectory, name: str, prompts: Sequence[Prompt] | Sequence[Dropped]) -> str:
    columns = {
        "row": pa.array([prompt.row for prompt in prompts], pa.int64()),
        "prompt": pa.array([prompt.text for prompt in prompts], pa.string()),
    }
    kept = [prompt.category for prompt in prompts if isinstance(prompt, Prompt)]
    reasons = [prompt.reason for prompt in prompts if isinstance(prompt, Dropped)]
    columns |= (
        {"reason": pa.array(reasons, pa.string())} if name == DROPPED else {"category": pa.array(kept, pa.string())}
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), buffer)
    return run.write(name, buffer.getvalue())

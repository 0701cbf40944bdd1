"""Which prompts an evaluation asks for, and under which number each image's noise is drawn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from sdo_ray.evaluation.settings import HeldoutSettings
from sdo_ray.prompts.read import read_prompts
from sdo_ray.settings import SettingsError


def read_questions(settings: HeldoutSettings, seed: int) -> pa.Table:
    """One row a (prompt, noise) pair: `index` int64, `prompt`, `category` (null where there is none).

    N different prompts are drawn, as `choose_prompts` draws them for the same seed. Image j of prompt i has the index
    j N + i, so that its first images are those of an evaluation with one image a prompt.

    Raises:
        SettingsError: the prompts cannot be read, there are too few, or the categories are not text.
    """
    try:
        prompts = read_prompts(settings.heldout, settings.column)
        categories = _read_categories(settings) or [None] * len(prompts)
    except SettingsError as error:
        raise SettingsError(*(f"prompts.heldout: {problem}" for problem in error.problems)) from None
    if len(prompts) < settings.num_prompts:
        raise SettingsError(
            f"prompts.num_prompts: got {settings.num_prompts}, but {settings.heldout!r} has {len(prompts)} prompts; "
            "ask for at most that many."
        )
    chosen = np.random.default_rng(seed).permutation(len(prompts))[: settings.num_prompts]
    rows = np.tile(chosen, settings.images_per_prompt)
    return pa.table(
        {
            "index": pa.array(range(len(rows)), pa.int64()),
            "prompt": pa.array([prompts[row] for row in rows], pa.string()),
            "category": pa.array([categories[row] for row in rows], pa.string()),
        }
    )


def _read_categories(settings: HeldoutSettings) -> list[str | None] | None:
    dataset = pyarrow.dataset.dataset(settings.heldout, format="parquet")
    if settings.category not in dataset.schema.names:
        if "category" in settings.model_fields_set:
            raise SettingsError(
                f"{settings.heldout!r} has no column {settings.category!r}; it has {', '.join(dataset.schema.names)}. "
                "Correct prompts.category, or leave it out."
            )
        return None
    kind = dataset.schema.field(settings.category).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise SettingsError(f"{settings.heldout!r}: column {settings.category!r} holds {kind}; categories are text.")
    categories: list[str | None] = dataset.to_table(columns=[settings.category]).column(0).to_pylist()
    return categories

"""The prompts that models are compared on: which ones are drawn, and under which number each image's noise is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from sdo_ray.prompts.clean import identity, normalise
from sdo_ray.prompts.inputs import COLUMN, as_column, read_inputs
from sdo_ray.prompts.read import read_texts
from sdo_ray.settings import Problem, SettingsError


def read_heldout(
    path: str,
    column: str,
    category: str | None = None,
    *,
    category_needed: bool = False,
    inputs: Mapping[str, str] | None = None,
) -> pa.Table:
    """All prompts of a file with their categories: `prompt`, `category` (null where there is none), and `inputs`, see
    `sdo_ray.prompts.inputs`, where any are asked for.

    Args:
        path: see `read_columns`.
        column: the prompts'.
        category: the categories'.
        category_needed: whether that one must be there.
        inputs: argument of the pipeline's call -> column; none: there are none.

    Raises:
        SettingsError: see `read_texts`; of the path.
    """
    labels = [] if category is None else [category]
    texts = read_texts(
        path, [column], labels=labels if category_needed else [], optional=[] if category_needed else labels
    )
    categories = pa.nulls(len(texts), pa.string()) if category is None else texts[category]
    table = pa.table({"prompt": texts[column], "category": categories})
    rows = read_inputs(path, column, inputs or {})
    return table.append_column(COLUMN, as_column(rows)) if rows else table


def draw_questions(prompts: pa.Table, count: int, seed: int, *, images_per_prompt: int = 1) -> pa.Table:
    """One row a (prompt, noise) pair: `index` int64, `prompt`, `category`.

    Args:
        prompts: of `read_heldout`.
        count: N, how many are drawn without repetition, the same ones in the same order for a seed.
        seed: of the draw.
        images_per_prompt: image j of prompt i has the index j N + i, so that the first images are those of one image a
            prompt.

    Raises:
        SettingsError: there are fewer than N; of the count.
    """
    if len(prompts) < count:
        got = f"got {count}, but the file has {len(prompts)} prompts"
        raise SettingsError(Problem("", got, fix="ask for at most that many"))
    rows = np.tile(np.random.default_rng(seed).permutation(len(prompts))[:count], images_per_prompt)
    return prompts.take(rows).add_column(0, "index", pa.array(range(len(rows)), pa.int64())).combine_chunks()


def check_apart(learned: Iterable[str], heldout: pa.Table) -> None:
    """Refuse prompts that are held out and learned from.

    Args:
        learned: prompts.
        heldout: of `read_heldout`.

    Raises:
        SettingsError: there are some, but for case and white space; of the prompts held out.
    """
    if got := said_of_both(learned, heldout):
        legal = "what was learned shows on prompts that it was not learned from"
        raise SettingsError(Problem("", got, legal, "remove them from one of the two files"))


def said_of_both(learned: Iterable[str], heldout: pa.Table) -> str | None:
    """What to say of prompts that are in both, but for case and white space; None if there are none.

    Args:
        learned: prompts.
        heldout: with a column `prompt`.
    """
    known, texts = {_same(prompt) for prompt in learned}, heldout["prompt"].to_pylist()
    both = [text for text in texts if _same(text) in known]
    if not both:
        return None
    return f"{len(both)} of {len(texts)} prompts are also trained on, such as {normalise(both[0])[:60]!r}"


def _same(prompt: str) -> str:
    """What two prompts share that count as one."""
    return identity(normalise(prompt), "text")

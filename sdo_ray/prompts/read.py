"""Read prompts, refuse bad ones, and lay out which prompt each row of the run gets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs

from sdo_ray.seeds import derive_seed
from sdo_ray.settings import SettingsError


def read_prompts(path: str, column: str = "prompt") -> list[str]:
    """All prompts of a parquet file or directory, local or at a URI that pyarrow knows (`s3://`, `gs://`, ...).

    Raises:
        SettingsError: no such file, not parquet, no such column, not text, or null or empty prompts (which rows). The
            message starts with the path; put the name of the setting in front.
    """
    try:
        dataset = pyarrow.dataset.dataset(path, format="parquet")
        schema = dataset.schema
    except FileNotFoundError:
        raise SettingsError(f"{path!r} does not exist; give a parquet file or a directory of them.") from None
    except (pa.ArrowException, OSError) as error:
        raise SettingsError(
            f"{path!r} cannot be read as parquet: {str(error).splitlines()[0]}; "
            "give a parquet file or a directory of them."
        ) from None
    if not dataset.files:
        raise SettingsError(f"{path!r} is a directory without parquet files; give one with some, or a file.")
    if column not in schema.names:
        raise SettingsError(
            f"{path!r} has no column {column!r}; it has {', '.join(schema.names) or 'none'}. "
            "Name the one with the prompts."
        )
    kind = schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise SettingsError(f"{path!r}: column {column!r} holds {kind}; prompts are strings. Name another column.")
    prompts = dataset.to_table(columns=[column]).column(column).to_pylist()
    bad = [row for row, prompt in enumerate(prompts) if prompt is None or not prompt.strip()]
    if bad:
        rows = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise SettingsError(
            f"{path!r}: {len(bad)} of {len(prompts)} prompts are null or empty (rows {rows}, from 0); remove them."
        )
    if not prompts:
        raise SettingsError(f"{path!r} has no rows; it takes at least one prompt.")
    return prompts


def schedule(
    prompts: list[str], *, seed: int, batch_size: int, sampler_batch_size: int, start: int, stop: int
) -> Iterator[pa.Table]:
    """The work of updates [start, stop) as blocks of one sampler batch each.

    Row r of the run gets prompt `order_e[r mod P]` of epoch e = r div P, where `order_e` is a permutation of the P
    prompts fixed by (seed, e). Rows, and so prompts and noise, do not depend on how rows are cut into batches.

    Args:
        prompts: P prompts.
        seed: the run's seed.
        batch_size: rows of an update.
        sampler_batch_size: rows of a block; divides batch_size.
        start: first update.
        stop: the update after the last.

    Yields:
        Tables with columns `row` int64, `update` int64, `prompt` string; `sampler_batch_size` rows, all of one update.
    """
    epoch, order = -1, np.empty(0, dtype=np.int64)
    for first in range(start * batch_size, stop * batch_size, sampler_batch_size):
        rows = range(first, first + sampler_batch_size)
        chosen = []
        for row in rows:
            if row // len(prompts) != epoch:
                epoch = row // len(prompts)
                order = np.random.default_rng(derive_seed(seed, "prompt order", epoch)).permutation(len(prompts))
            chosen.append(prompts[order[row % len(prompts)]])
        yield pa.table(
            {
                "row": pa.array(rows, pa.int64()),
                "update": pa.array([first // batch_size] * len(rows), pa.int64()),
                "prompt": pa.array(chosen, pa.string()),
            }
        )

"""Which prompt each row of a run gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from sdo_ray.prompts.inputs import COLUMN, Row, as_column
from sdo_ray.seeds import derive_seed


def schedule(
    prompts: list[str],
    *,
    seed: int,
    batch_size: int,
    sampler_batch_size: int,
    start: int,
    stop: int,
    inputs: Sequence[Row] = (),
) -> Iterator[pa.Table]:
    """The work of updates [start, stop), one sampler batch a table.

    Row r of the run gets prompt `order_e[r mod P]` of epoch e = r div P, where `order_e` is a permutation of the P
    prompts fixed by (seed, e). Rows, and so prompts and noise, do not depend on how rows are cut into batches.

    Args:
        prompts: P prompts.
        seed: the run's seed.
        batch_size: rows of an update.
        sampler_batch_size: rows of a batch; divides batch_size.
        start: first update.
        stop: the update after the last.
        inputs: of each prompt; may be empty.

    Yields:
        Tables of one row, so that nothing cuts a batch: `update` int64, `rows` and `prompts` lists of int64 and string,
        `sampler_batch_size` long, and `inputs` likewise, of `as_column`, where there are any.
    """
    epoch, order = -1, np.empty(0, dtype=np.int64)
    for first in range(start * batch_size, stop * batch_size, sampler_batch_size):
        rows = range(first, first + sampler_batch_size)
        chosen = []
        for row in rows:
            if row // len(prompts) != epoch:
                epoch = row // len(prompts)
                order = np.random.default_rng(derive_seed(seed, "prompt order", epoch)).permutation(len(prompts))
            chosen.append(order[row % len(prompts)])
        table = pa.table(
            {
                "update": pa.array([first // batch_size], pa.int64()),
                "rows": pa.array([rows], pa.list_(pa.int64())),
                "prompts": pa.array([[prompts[i] for i in chosen]], pa.list_(pa.string())),
            }
        )
        if inputs:
            given = as_column([inputs[i] for i in chosen]).to_pylist()
            table = table.append_column(COLUMN, pa.array([given], pa.list_(pa.string())))
        yield table

"""The records that travel between rows, optimizers and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from sdo_ray.input_optimization.settings import FrozenModelSettings, OptimizationSettings, TextMixSettings
from sdo_ray.prompts.inputs import COLUMN, Row, as_column, from_column
from sdo_ray.rollout.settings import PlanSettings, SamplerSettings, SamplingSettings
from sdo_ray.rollout.tensors import dump_tensors, load_tensors

TEXT, SCORE = "text.", "score."
"""What the names of the columns with a row's texts and scores start with."""


@dataclass(frozen=True)
class OptimizerConfig:
    """What an optimizer needs to know."""

    seed: int
    """The run's seed."""
    model: FrozenModelSettings
    sampling: SamplingSettings
    plan: PlanSettings
    rewards: TextMixSettings
    optimization: OptimizationSettings
    samplers: SamplerSettings
    column: str
    """The text that is the prompt."""


@dataclass(frozen=True)
class RowBatch:
    """The rows that are optimised at once, each on its own."""

    rows: tuple[int, ...]
    """Their numbers; with the run's seed they fix noise and, by the first of them, the kept steps."""
    texts: Mapping[str, tuple[str, ...]]
    """Column -> one text a row: the prompts, and what else rewards are given."""
    inputs: tuple[Row, ...] = ()
    """What the pipeline is given besides each prompt; empty if no more."""

    def to_arrow(self) -> pa.Table:
        """A row each: `row` int64, `text.NAME`, and `inputs` of `as_column` where there are any."""
        columns: dict[str, Any] = {TEXT + name: list(texts) for name, texts in self.texts.items()}
        columns |= {COLUMN: as_column(self.inputs)} if self.inputs else {}
        return pa.table({"row": pa.array(self.rows, pa.int64()), **columns})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> RowBatch:
        """Read what `to_arrow` wrote, or a table of results."""
        columns = table.select([name for name in table.column_names if name == "row" or name.startswith(TEXT)])
        rows, texts = columns["row"].to_pylist(), columns.drop_columns("row").to_pydict()
        given = table[COLUMN].to_pylist() if COLUMN in table.column_names else ()
        return cls(
            tuple(rows),
            {name.removeprefix(TEXT): tuple(values) for name, values in texts.items()},
            tuple(from_column(given)),
        )


@dataclass(frozen=True)
class OptimizedRow:
    """What became of a row."""

    row: int
    """Its number."""
    texts: Mapping[str, str]
    """Column -> its text."""
    initial_image: bytes
    """PNG of the image before."""
    final_image: bytes
    """PNG of the best image."""
    best_iteration: int
    """Steps of the optimizer that made it; 0: none made it better."""
    scores: Mapping[str, Sequence[float]]
    """Reward key -> score after 0, 1, .. steps."""
    mixed: Sequence[float]
    """The mixed reward likewise; NaN where a reward or its gradient was not finite, and no step was made."""
    kept_steps: Sequence[int]
    """The first sampling step that kept its graph, of each step of the optimizer."""
    variable: Mapping[str, torch.Tensor]
    """`initial` and `final`, float32, without the batch's dimension."""
    inputs: Row | None = None
    """What the pipeline was given besides the prompt, if it was given more."""

    def columns(self) -> dict[str, Any]:
        """The values of `results_table`'s row."""
        return {
            "row": self.row,
            **{TEXT + name: text for name, text in self.texts.items()},
            **({} if self.inputs is None else {COLUMN: as_column([self.inputs])[0].as_py()}),
            "initial_image": self.initial_image,
            "final_image": self.final_image,
            "best_iteration": self.best_iteration,
            "mixed": list(self.mixed),
            **{SCORE + name: list(scores) for name, scores in self.scores.items()},
            "kept_steps": list(self.kept_steps),
            "variable": dump_tensors(self.variable),
        }


def results_table(results: Sequence[OptimizedRow]) -> pa.Table:
    """One row each: `row`, `text.NAME`, `inputs` if there are any, the two images, `best_iteration`, lists over the
    iterations `mixed`, `score.KEY` and `kept_steps`, and `variable`, safetensors with `initial` and `final`."""
    rows = [result.columns() for result in results]
    return pa.Table.from_pylist(rows, pa.schema([(name, _TYPES.get(name) or _type(name)) for name in rows[0]]))


_TYPES = {
    "row": pa.int64(),
    COLUMN: pa.string(),
    "initial_image": pa.binary(),
    "final_image": pa.binary(),
    "best_iteration": pa.int64(),
    "mixed": pa.list_(pa.float64()),
    "kept_steps": pa.list_(pa.int64()),
    "variable": pa.large_binary(),
}


def _type(name: str) -> pa.DataType:
    return pa.string() if name.startswith(TEXT) else pa.list_(pa.float64())


def final_variable(row: Mapping[str, Any]) -> torch.Tensor:
    """What was optimised, from a row of results, without the batch's dimension."""
    return load_tensors(row["variable"])["final"]

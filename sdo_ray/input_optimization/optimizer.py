"""The optimizer actor, a Ray Data callable that optimises a batch of rows, and the stream of what it does.

rows --> RowOptimizer (actor pool) --> results, batch by batch as they are done
         calls the reward actors
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch

from sdo_ray.blocks import map_blocks
from sdo_ray.input_optimization.loop import optimize_batch
from sdo_ray.input_optimization.records import OptimizerConfig, RowBatch, results_table
from sdo_ray.models.checkpointing import checkpoint_as_set
from sdo_ray.models.load import load_pipeline
from sdo_ray.rollout.preparation import prepare
from sdo_ray.rollout.reward_client import RewardClient


class RowOptimizer:
    """Holds the frozen model.

    Args:
        config: what to do.
        reward_actors: handles by reward key.
    """

    def __init__(self, config: OptimizerConfig, reward_actors: Mapping[str, Any]) -> None:
        torch.set_num_threads(max(1, int(config.samplers.num_cpus)))
        self._config = config
        self._rewards = RewardClient(reward_actors, [term.key for term in config.rewards.terms if term.weight])
        device = "cuda" if config.samplers.num_gpus else "cpu"
        self._pipeline = load_pipeline(config.model.base, config.model.dtype, device, config.model.dtypes)
        checkpoint_as_set(self._pipeline, config.model.checkpoint_blocks)
        prepare(self._pipeline, config.sampling, config.samplers)

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of `RowBatch.to_arrow` -> its `results_table`."""
        batch = RowBatch.from_arrow(block)
        return results_table(optimize_batch(self._pipeline, batch, self._config, self._rewards.ask))


def optimize_rows(
    batches: Sequence[RowBatch], config: OptimizerConfig, reward_actors: Mapping[str, Any]
) -> Iterator[pa.Table]:
    """Optimise batches in parallel; yields the results of each as it is done, in any order."""
    yield from map_blocks(
        [batch.to_arrow() for batch in batches],
        RowOptimizer,
        {"config": config, "reward_actors": reward_actors},
        count=config.samplers.count,
        resources=config.samplers,
    )

"""The source of the stream: batches of prompts, each made once a policy that may sample it exists.

Waiting for policies happens here and nowhere else. One loop makes one batch after the other, and a batch that has left
it may be sampled at once, so nothing behind this source waits for a policy, and no batch waits behind one that does:
Ray Data may hand batches on in any order, redo them after a crash, and queue them as it likes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata

from sdo_ray.rollout.policy_store import Policies

logger = logging.getLogger(__name__)

LOG_EVERY = 30.0
"""Seconds of waiting between two log lines."""


class PacedSchedule(ray.data.Datasource):
    """A Ray Data source of `blocks()`, at the pace of the policy.

    Args:
        blocks: makes the tables of `prompts.schedule`; called again, and gone through anew, after a crash.
        max_policy_lag: updates that a sampling policy may be behind.
        policies: where versions are published.
        ready: reference that is there once the versions published are this stream's.
    """

    def __init__(
        self,
        blocks: Callable[[], Iterator[pa.Table]],
        *,
        max_policy_lag: int,
        policies: Policies,
        ready: ray.ObjectRef[None],
    ) -> None:
        super().__init__()
        self._blocks = blocks
        self._max_policy_lag = max_policy_lag
        self._policies = policies
        self._ready = ready

    def estimate_inmemory_data_size(self) -> int | None:
        """None: blocks are made one at a time."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ray.data.ReadTask]:
        """One task, whatever `parallelism` is: the order of the blocks is the order of its loop."""
        blocks, max_policy_lag, policies, ready = self._blocks, self._max_policy_lag, self._policies, self._ready

        def read() -> Iterator[pa.Table]:
            ray.get(ready)
            return paced(blocks(), max_policy_lag, policies)

        return [
            ray.data.ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None))
        ]


def paced(blocks: Iterator[pa.Table], max_policy_lag: int, policies: Policies) -> Iterator[pa.Table]:
    """`blocks` unchanged, each once version `update - max_policy_lag` of the policy or a newer one is published.

    Args:
        blocks: tables with a column `update`, which does not decrease.
        max_policy_lag: updates that a sampling policy may be behind.
        policies: where versions are published.
    """
    newest = -1
    for block in blocks:
        update = block.column("update")[0].as_py()
        needed = max(0, update - max_policy_lag)
        while newest < needed:
            newest = policies.wait_for(needed, LOG_EVERY)
            if newest < needed:
                # A warning, because processes of Ray write nothing below to their log files.
                logger.warning("update %d waits for policy version %d; the newest is %d", update, needed, newest)
        yield block

"""Stand-ins for the samplers of a stream. A module of its own: their processes import it, and it imports no torch."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import ray

from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.watch import Watch


class FakeSampler:
    """Answers a batch with its rows and the policy version that a sampler would take."""

    def __init__(self, config: Any, policies: Policies, reward_actors: Mapping[str, Any], watch: Watch) -> None:
        self._policies = policies
        self._watch = watch

    def __call__(self, table: pa.Table) -> pa.Table:
        [batch] = table.to_pylist()
        version, _ = self._policies.newest(batch["update"])
        return pa.table({"update": [batch["update"]], "rows": [batch["rows"]], "version": [version]})


class DyingSampler(FakeSampler):
    """Dies at a batch, every time."""

    def __call__(self, table: pa.Table) -> pa.Table:
        from sdo_ray.rollout.records import PromptBatch

        [batch] = table.to_pylist()
        with self._watch.batch(PromptBatch(batch["update"], tuple(batch["rows"]), tuple(batch["prompts"]))):
            if batch["rows"][0] == 4:
                os._exit(139)
            return super().__call__(table)


class Meeting:
    """An actor: whoever comes waits until `count` of them are there."""

    def __init__(self, count: int) -> None:
        self._barrier = asyncio.Barrier(count)

    async def come(self) -> None:
        await self._barrier.wait()


class MeetingSampler(FakeSampler):
    """Answers once as many samplers as the meeting takes have a batch in hand."""

    def __init__(self, config: Any, policies: Policies, reward_actors: Mapping[str, Any], watch: Watch) -> None:
        super().__init__(config, policies, reward_actors, watch)
        self._meeting = reward_actors["meeting"]

    def __call__(self, table: pa.Table) -> pa.Table:
        ray.get(self._meeting.come.remote())
        return super().__call__(table)

"""Stand-ins for the samplers of a stream. A module of its own: their processes import it, and it imports no torch."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import ray

from sdo_ray.rollout.policy_store import Policies


class FakeSampler:
    """Answers a batch with its rows and the policy version that a sampler would take."""

    def __init__(self, config: Any, policies: Policies, reward_actors: Mapping[str, Any]) -> None:
        self._policies = policies

    def __call__(self, table: pa.Table) -> pa.Table:
        [batch] = table.to_pylist()
        version, _ = self._policies.newest(batch["update"])
        return pa.table({"update": [batch["update"]], "rows": [batch["rows"]], "version": [version]})


class Meeting:
    """An actor: whoever comes waits until `count` of them are there."""

    def __init__(self, count: int) -> None:
        self._barrier = asyncio.Barrier(count)

    async def come(self) -> None:
        await self._barrier.wait()


class MeetingSampler(FakeSampler):
    """Answers once as many samplers as the meeting takes have a batch in hand."""

    def __init__(self, config: Any, policies: Policies, reward_actors: Mapping[str, Any]) -> None:
        super().__init__(config, policies, reward_actors)
        self._meeting = reward_actors["meeting"]

    def __call__(self, table: pa.Table) -> pa.Table:
        ray.get(self._meeting.come.remote())
        return super().__call__(table)

"""The actor between those who ask for scores and the replicas of the rewards.

sampler -- images by reference --> RewardPool -- the same references --> RewardActor, `count` a reward
        <-- answer by reference --            <-- answer stays where it is --

It sees every call and no image: who is free takes the next, who dies or hangs is replaced, see `Replicas`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from rewards.service import RewardActor
from rewards.spec import RewardSpec
from sdo_ray.cluster import cause_of
from sdo_ray.rollout.replica import Call, Limits, Replica, ReplicaLost
from sdo_ray.rollout.replicas import Replicas
from sdo_ray.rollout.reward_settings import RewardActorSettings


@dataclass(frozen=True)
class PooledReward:
    """A reward that a pool keeps."""

    path: str
    """What its actors import."""
    settings: RewardActorSettings
    sampling_rate: int | None = None
    """Of the sounds that it judges, in Hz."""
    argument: str | None = None
    """Of the pipeline's call, whose texts it is given; None: the prompts."""


class RewardPool:
    """An asynchronous Ray actor. `RewardHandle` is its client.

    Args:
        rewards: by key.
    """

    def __init__(self, rewards: Mapping[str, PooledReward]) -> None:
        self._rewards = rewards
        self._started: dict[str, Replicas] = {}
        self._any: dict[str, _ActorReplica] = {}

    async def spec(self, key: str) -> RewardSpec:
        """What a reward is, once all its replicas are ready.

        Raises:
            RewardFailed: they do not start.
        """
        await self._replicas(key).ready()
        spec: RewardSpec = await self._any[key].actor.spec.remote()
        return spec

    async def provenance(self, key: str) -> dict[str, Any]:
        """See `RewardActor.provenance`; raises as `spec`."""
        await self._replicas(key).ready()
        found: dict[str, Any] = await self._any[key].actor.provenance.remote()
        return found

    async def score(
        self,
        key: str,
        images: Sequence[ray.ObjectRef[Any]],
        shape: tuple[int, ...],
        prompts: list[str],
        want_gradient: bool,
        seeds: list[int],
    ) -> list[ray.ObjectRef[Any]]:
        """Scores of a batch.

        Args:
            key: of the reward.
            images: one reference, in a list so that it stays one.
            shape: of the images.
            prompts: B prompts.
            want_gradient: whether to compute d score_b / d image_b.
            seeds: of each image, for what the reward draws; may be empty.

        Returns:
            A reference to scores [B] and gradients or None.

        Raises:
            RewardFailed: there is no answer, after all that could be tried.
            Exception: what the reward raised.
        """
        answer: ray.ObjectRef[Any] = await self._replicas(key).score(
            Call(images[0], shape, prompts, want_gradient, seeds)
        )
        return [answer]

    async def waiting(self) -> dict[str, float]:
        """What is waited for here, in words -> since how many seconds."""
        return {what: since for replicas in self._started.values() for what, since in replicas.waiting().items()}

    async def news(self) -> list[str]:
        """What was restarted since this was called last."""
        found = [line for replicas in self._started.values() for line in replicas.news]
        for replicas in self._started.values():
            replicas.news.clear()
        return found

    def _replicas(self, key: str) -> Replicas:
        # Made at the first call, as only then there is an event loop; also after a restart of this actor.
        if key not in self._started:
            pooled = self._rewards[key]
            settings = pooled.settings

            def start() -> Replica:
                self._any[key] = _ActorReplica(pooled)
                return self._any[key]

            limits = Limits(
                count=settings.count,
                batch_size=settings.batch_size,
                timeout=settings.timeout,
                start_timeout=settings.start_timeout,
                max_restarts=settings.max_restarts,
            )
            self._started[key] = Replicas(key, start, limits)
        return self._started[key]


class _ActorReplica:
    """A `RewardActor`, as `Replicas` sees it."""

    def __init__(self, reward: PooledReward) -> None:
        settings = reward.settings
        self.actor: Any = (
            ray.remote(RewardActor)
            .options(num_cpus=settings.num_cpus, num_gpus=settings.num_gpus, runtime_env=settings.runtime_env or None)
            .remote(
                reward.path,
                settings.options,
                num_threads=max(1, int(settings.num_cpus)),
                device="cuda" if settings.num_gpus else "cpu",
                smoothing=settings.smoothing,
                frames=settings.seen_frames,
                sampling_rate=reward.sampling_rate,
            )
        )

    async def ready(self) -> bool:
        try:
            spec: RewardSpec = await self.actor.spec.remote()
        except DEATHS as error:
            if getattr(error, "actor_init_failed", False):  # it did not die: its constructor raised
                raise RuntimeError(cause_of(error)) from None
            raise ReplicaLost(_death(error, "at its start")) from None
        except ray.exceptions.RayError as error:
            raise RuntimeError(cause_of(error)) from None
        return not spec.batchwise

    async def score(self, calls: Sequence[Call]) -> Sequence[ray.ObjectRef[Any]]:
        *answers, seconds = self.actor.score_together.options(num_returns=len(calls) + 1).remote(
            [call.prompts for call in calls],
            calls[0].want_gradient,
            [call.seeds for call in calls],
            *(call.images for call in calls),
        )
        try:
            await seconds
        except DEATHS as error:
            raise ReplicaLost(_death(error, "while it scored")) from None
        return answers

    def kill(self) -> None:
        ray.kill(self.actor)


DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
"""What Ray raises for an actor that is gone."""


def _death(error: BaseException, when: str) -> str:
    """How a process died, in words."""
    # The text of other deaths speaks of memory too, as one cause among many.
    for_memory = isinstance(error, ray.exceptions.OutOfMemoryError) or "low on memory" in str(error)
    return f"was killed for memory, by Ray's monitor, {when}" if for_memory else f"died {when}"


@dataclass(frozen=True)
class RewardHandle:
    """One reward of a pool; may travel between processes. Every call returns a reference."""

    pool: Any
    """Handle of the `RewardPool`."""
    key: str
    argument: str | None = None
    """See `PooledReward`."""

    def spec(self) -> ray.ObjectRef[RewardSpec]:
        """See `RewardPool.spec`."""
        return self.pool.spec.remote(self.key)

    def provenance(self) -> ray.ObjectRef[dict[str, Any]]:
        """See `RewardPool.provenance`."""
        return self.pool.provenance.remote(self.key)

    def score(
        self,
        images: ray.ObjectRef[Any],
        shape: tuple[int, ...],
        prompts: list[str],
        want_gradient: bool,
        seeds: list[int],
    ) -> ray.ObjectRef[list[ray.ObjectRef[Any]]]:
        """See `RewardPool.score`."""
        return self.pool.score.remote(self.key, [images], shape, prompts, want_gradient, seeds)


def pools(rewards: Mapping[str, RewardHandle]) -> list[Any]:
    """The actors behind some handles, each once."""
    return list({handle.pool._actor_id: handle.pool for handle in rewards.values()}.values())


def start_pool(rewards: Mapping[str, PooledReward]) -> dict[str, RewardHandle]:
    """A pool; returns handles by key. Nothing is waited for."""
    # Whatever it dies of, it starts anew with new replicas, and what was asked is asked again.
    actor = ray.remote(RewardPool).options(num_cpus=0, max_concurrency=1000, max_restarts=-1, max_task_retries=-1)
    pool = actor.remote(dict(rewards))
    return {key: RewardHandle(pool, key, reward.argument) for key, reward in rewards.items()}

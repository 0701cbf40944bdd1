"""The actor between those who ask for scores and the replicas of the rewards.

sampler -- images by reference --> RewardPool -- the same references --> RewardActor, `count` a reward
        <-- answer by reference --            <-- answer stays where it is --

It sees every call and no image: who is free takes the next, who dies or hangs is replaced, see `Replicas`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from rewards.service import RewardActor
from rewards.shared_service import Member, SharedActor
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
        groups: by name, the rewards by key that one actor computes.
    """

    def __init__(self, groups: Mapping[str, Mapping[str, PooledReward]]) -> None:
        self._groups = groups
        self._started: dict[str, Replicas] = {}
        self._any: dict[str, _ActorReplica] = {}

    async def spec(self, group: str, key: str) -> RewardSpec:
        """What a reward is, once all its replicas are ready.

        Raises:
            RewardFailed: they do not start.
        """
        spec: RewardSpec = await self._said(group, key, "spec")
        return spec

    async def provenance(self, group: str, key: str) -> dict[str, Any]:
        """See `RewardActor.provenance`; raises as `spec`."""
        found: dict[str, Any] = await self._said(group, key, "provenance")
        return found

    async def _said(self, group: str, key: str, method: str) -> Any:
        await self._replicas(group).ready()
        said = await getattr(self._any[group].actor, method).remote()
        return said[key] if self._any[group].shared else said

    async def score(
        self,
        group: str,
        images: Sequence[ray.ObjectRef[Any]],
        shape: tuple[int, ...],
        texts: dict[str, list[str]],
        want_gradient: dict[str, bool],
        seeds: list[int],
    ) -> list[ray.ObjectRef[Any]]:
        """Scores of a batch.

        Args:
            group: whose actor is asked.
            images: one reference, in a list so that it stays one.
            shape: of the images.
            texts: key of each of its rewards that is asked -> B texts.
            want_gradient: for each of these, whether to compute d score_b / d image_b.
            seeds: of each image, for what rewards draw; may be empty.

        Returns:
            A reference to scores [B] and gradients or None, of a group of several by key.

        Raises:
            RewardFailed: there is no answer, after all that could be tried.
            Exception: what the reward raised.
        """
        answer: ray.ObjectRef[Any] = await self._replicas(group).score(
            Call(images[0], shape, texts, want_gradient, seeds)
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

    async def health(self) -> dict[str, dict[str, float]]:
        """Key of each reward -> `seconds`, mean of its calls since this was called last, if there were any, and
        `restarts` so far."""
        found: dict[str, dict[str, float]] = {}
        for group, replicas in self._started.items():
            seconds = {"seconds": statistics.fmean(replicas.seconds)} if replicas.seconds else {}
            found |= {key: {**seconds, "restarts": float(replicas.restarts)} for key in self._groups[group]}
            replicas.seconds.clear()
        return found

    def _replicas(self, group: str) -> Replicas:
        # Made at the first call, as only then there is an event loop; also after a restart of this actor.
        if group not in self._started:
            pooled = self._groups[group]
            settings = next(iter(pooled.values())).settings  # what follows is alike in a group

            def start() -> Replica:
                self._any[group] = _ActorReplica(pooled)
                return self._any[group]

            limits = Limits(
                count=settings.count,
                batch_size=settings.batch_size,
                timeout=settings.timeout,
                start_timeout=settings.start_timeout,
                max_restarts=settings.max_restarts,
            )
            self._started[group] = Replicas(group, start, limits)
        return self._started[group]


class _ActorReplica:
    """A `RewardActor` or, of several rewards, a `SharedActor`, as `Replicas` sees it."""

    def __init__(self, rewards: Mapping[str, PooledReward]) -> None:
        first, *others = rewards.values()
        settings, self.shared = first.settings, bool(others)
        place: dict[str, Any] = {
            "num_threads": max(1, int(settings.num_cpus)),
            "device": "cuda" if settings.num_gpus else "cpu",
            "offload": settings.offload,
        }
        actor = ray.remote(SharedActor if self.shared else RewardActor).options(
            num_cpus=settings.num_cpus, num_gpus=settings.num_gpus, runtime_env=settings.runtime_env or None
        )
        if self.shared:
            members = {key: Member(reward.path, reward.settings.options) for key, reward in rewards.items()}
            self.actor: Any = actor.remote(members, **place)
        else:
            self.actor = actor.remote(
                first.path,
                settings.options,
                **place,
                called=next(iter(rewards)),
                smoothing=settings.smoothing,
                frames=settings.seen_frames,
                sampling_rate=first.sampling_rate,
            )

    async def ready(self) -> bool:
        try:
            said = await self.actor.spec.remote()
        except DEATHS as error:
            if getattr(error, "actor_init_failed", False):  # it did not die: its constructor raised
                raise RuntimeError(cause_of(error)) from None
            raise ReplicaLost(_death(error, "at its start")) from None
        except ray.exceptions.RayError as error:
            raise RuntimeError(cause_of(error)) from None
        specs: list[RewardSpec] = list(said.values()) if self.shared else [said]
        return not any(spec.batchwise for spec in specs)

    async def score(self, calls: Sequence[Call]) -> Sequence[ray.ObjectRef[Any]]:
        want: Any = calls[0].want_gradient
        *answers, seconds = self.actor.score_together.options(num_returns=len(calls) + 1).remote(
            [call.texts if self.shared else call.prompts for call in calls],
            want if self.shared else next(iter(want.values())),
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
    group: str
    """That its actor computes."""
    argument: str | None = None
    """See `PooledReward`."""

    def spec(self) -> ray.ObjectRef[RewardSpec]:
        """See `RewardPool.spec`."""
        return self.pool.spec.remote(self.group, self.key)

    def provenance(self) -> ray.ObjectRef[dict[str, Any]]:
        """See `RewardPool.provenance`."""
        return self.pool.provenance.remote(self.group, self.key)

    def score(
        self,
        images: ray.ObjectRef[Any],
        shape: tuple[int, ...],
        texts: dict[str, list[str]],
        want_gradient: dict[str, bool],
        seeds: list[int],
    ) -> ray.ObjectRef[list[ray.ObjectRef[Any]]]:
        """See `RewardPool.score`: of its group, those with a text."""
        return self.pool.score.remote(self.group, [images], shape, texts, want_gradient, seeds)


def pools(rewards: Mapping[str, RewardHandle]) -> list[Any]:
    """The actors behind some handles, each once."""
    return list({handle.pool._actor_id: handle.pool for handle in rewards.values()}.values())


def asked_together(rewards: Mapping[str, RewardHandle]) -> list[list[str]]:
    """Keys that are asked in one call each, as one actor computes them."""
    found: dict[Any, list[str]] = {}
    for key, handle in rewards.items():
        found.setdefault((handle.pool._actor_id, handle.group), []).append(key)
    return list(found.values())


def health_of(pools: Sequence[Any]) -> dict[str, dict[str, float]]:
    """See `RewardPool.health`, of all of them; empty where one does not say, as it starts anew.

    A report waits for it, and loses these numbers rather than a second.
    """
    try:
        parts = ray.get([pool.health.remote() for pool in pools], timeout=1.0)
    except ray.exceptions.RayError:  # GetTimeoutError is one, too
        return {}
    return {key: numbers for part in parts for key, numbers in part.items()}


def start_pool(rewards: Mapping[str, PooledReward]) -> dict[str, RewardHandle]:
    """A pool; returns handles by key. Nothing is waited for."""
    together: dict[tuple[str, bool], dict[str, PooledReward]] = {}
    for key, reward in rewards.items():
        share = reward.settings.share
        together.setdefault((key, False) if share is None else (share, True), {})[key] = reward
    groups = {" and ".join(members): members for members in together.values()}
    # Whatever it dies of, it starts anew with new replicas, and what was asked is asked again.
    actor = ray.remote(RewardPool).options(num_cpus=0, max_concurrency=1000, max_restarts=-1, max_task_retries=-1)
    pool = actor.remote(groups)
    return {
        key: RewardHandle(pool, key, group, reward.argument)
        for group, members in groups.items()
        for key, reward in members.items()
    }

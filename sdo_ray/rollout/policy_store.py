"""The policy's versions on their way from trainers to samplers.

trainer rank 0 -- Publisher -- publish(version, weights) --> PolicyStore <-- newest(at_most) --- samplers
                                                                         <-- wait_for(version) - stream's source

A store that dies starts anew, empty; whoever published last publishes again, and the others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from dataclasses import dataclass
from typing import Any, Self

import ray

logger = logging.getLogger(__name__)


EMPTY_FOR = 60.0
"""Seconds that a store which starts anew has no version, at most."""

LOOK_EVERY = 5.0
"""Seconds between two looks of a publisher at the store."""


class PolicyStore:
    """An asynchronous Ray actor; version v of the policy has v updates in it. `Policies` is its client.

    Args:
        keep: versions kept; samplers that lag further behind than this cannot be served.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._weights: dict[int, ray.ObjectRef[Any]] = {}
        self._changed = asyncio.Condition()

    async def publish(self, version: int, weights: bytes) -> None:
        """Make `version` the newest; later ones, of trainers that died after their last checkpoint, are forgotten."""
        async with self._changed:
            self._weights = {v: ref for v, ref in self._weights.items() if version - self._keep < v < version}
            self._weights[version] = ray.put(weights)
            self._changed.notify_all()

    async def go_back(self, version: int) -> None:
        """Forget the versions after `version`."""
        self._weights = {v: ref for v, ref in self._weights.items() if v <= version}

    async def newest(self, at_most: int) -> tuple[int, list[ray.ObjectRef[Any]]]:
        """The newest version up to `at_most`, and a one-element list with the reference to its weights.

        With none at all, it waits until one is published again.
        """
        if not self._weights:
            await self.wait_for(0, EMPTY_FOR)
        versions = [version for version in self._weights if version <= at_most]
        if not versions:
            raise LookupError(f"no policy version up to {at_most} is kept; there are {sorted(self._weights)}")
        return max(versions), [self._weights[max(versions)]]

    async def wait_for(self, version: int, seconds: float) -> int:
        """Wait until `version` or a newer one is published, at most `seconds`; returns the newest, -1 if none."""
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: self._version() >= version), seconds)
            return self._version()

    def _version(self) -> int:
        return max(self._weights, default=-1)


@dataclass(frozen=True)
class Policies:
    """Whoever publishes policies or takes them calls the store through this; it may travel between processes."""

    store: Any
    """Handle of the `PolicyStore`."""

    @classmethod
    def start(cls, max_policy_lag: int) -> Policies:
        """A store on the driver's node; if it dies, it starts anew, empty."""
        actor = ray.remote(PolicyStore).options(num_cpus=0, max_concurrency=1000, max_restarts=-1, max_task_retries=-1)
        return cls(actor.remote(keep=max_policy_lag + 2))

    def publish(self, version: int, weights: bytes) -> None:
        """Make `version` the newest.

        Args:
            version: number of updates in the policy.
            weights: safetensors bytes of what is trained.
        """
        ray.get(self.store.publish.remote(version, weights))

    def go_back(self, version: int) -> ray.ObjectRef[None]:
        """Forget the versions after `version`, which are made again; the reference is there once it is done."""
        done: ray.ObjectRef[None] = self.store.go_back.remote(version)
        return done

    def newest(self, at_most: int, known: int = -1) -> tuple[int, bytes | None]:
        """The newest version up to `at_most` and its weights; None in their place if it is `known` already.

        Raises:
            LookupError: no such version is kept.
        """
        version, [weights] = ray.get(self.store.newest.remote(at_most))
        return version, None if version == known else ray.get(weights)

    def wait_for(self, version: int, seconds: float) -> int:
        """Wait until `version` or a newer one is published, at most `seconds`; returns the newest, -1 if none."""
        newest: int = ray.get(self.store.wait_for.remote(version, seconds))
        return newest


class Publisher:
    """Publishes, and publishes the last version again if the store forgets it, as long as the block lasts.

    Args:
        policies: where to.
    """

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._last: tuple[int, bytes] | None = None
        self._publishing = threading.Lock()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, name="publisher", daemon=True)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Waited for: a call to a cluster that is gone, made in the next one, ends the process.
        self._ended.set()
        self._watch.join()

    def publish(self, version: int, weights: bytes) -> None:
        """See `Policies.publish`."""
        with self._publishing:
            self._policies.publish(version, weights)
            self._last = version, weights

    def _look(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            with contextlib.suppress(ray.exceptions.RayError), self._publishing:
                if self._last is not None and self._policies.wait_for(0, 0.0) < 0:
                    logger.warning("the policy store is empty; version %d is published again", self._last[0])
                    self._policies.publish(*self._last)

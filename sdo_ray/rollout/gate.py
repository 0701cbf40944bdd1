"""The gate in front of the samplers: a batch passes once a policy that is new enough for it exists.

Waiting happens here, in an actor of its own, and not in the samplers: a sampler that waited for a newer policy could
have an earlier batch, redone after a crash, queued behind it, and both would wait for ever.
"""

from __future__ import annotations

import logging

import pyarrow as pa

from sdo_ray.rollout.policy_store import Policies

logger = logging.getLogger(__name__)


class PolicyGate:
    """A Ray Data callable that passes blocks on unchanged.

    Args:
        policies: where they come from.
        max_policy_lag: updates that a sampling policy may be behind.
    """

    LOG_EVERY = 30.0
    """Seconds of waiting between two log lines."""

    def __init__(self, policies: Policies, max_policy_lag: int) -> None:
        self._policies = policies
        self._max_policy_lag = max_policy_lag

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return `block` once the store has version `update - max_policy_lag` or a newer one."""
        update = block.column("update")[0].as_py()
        needed = max(0, update - self._max_policy_lag)
        while (newest := self._policies.wait_for(needed, self.LOG_EVERY)) < needed:
            logger.info("update %d waits for policy version %d; the newest is %d", update, needed, newest)
        return block

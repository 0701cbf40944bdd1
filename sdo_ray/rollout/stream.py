"""The stream from prompts to contributions, as a Ray Data pipeline.

schedule --> PolicyGate (one actor, no CPU) --> Sampler (actor pool) --> Ray Train workers
             waits for the policy version        calls the reward actors   one block, one contribution
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray.data

from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout.gate import PolicyGate
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.records import SamplerConfig
from sdo_ray.rollout.sampler import Sampler


def contribution_stream(
    prompts: Sequence[str],
    config: SamplerConfig,
    *,
    start: int,
    stop: int,
    batch_size: int,
    max_policy_lag: int,
    policies: Policies,
    reward_actors: Mapping[str, Any],
) -> ray.data.Dataset:
    """The contributions to updates [start, stop), one block each, in order if the reader sets `preserve_order`.

    Args:
        prompts: the prompts to learn on.
        config: of the samplers.
        start: first update.
        stop: the update after the last.
        batch_size: rows of an update.
        max_policy_lag: updates that a sampling policy may be behind.
        policies: where versions are published.
        reward_actors: handles by reward name.
    """
    blocks = schedule(
        list(prompts),
        seed=config.seed,
        batch_size=batch_size,
        sampler_batch_size=config.samplers.batch_size,
        start=start,
        stop=stop,
    )
    # A map task handles a block whole and hands on its results at the end, so one block is one batch.
    dataset = ray.data.from_arrow(list(blocks))
    dataset = dataset.map_batches(
        PolicyGate,
        fn_constructor_kwargs={"policies": policies, "max_policy_lag": max_policy_lag},
        compute=ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=4),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0,
    )
    return dataset.map_batches(
        Sampler,
        fn_constructor_kwargs={"config": config, "policies": policies, "reward_actors": reward_actors},
        compute=ray.data.ActorPoolStrategy(size=config.samplers.count, max_tasks_in_flight_per_actor=1),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=config.samplers.num_cpus,
        num_gpus=config.samplers.num_gpus,
    )

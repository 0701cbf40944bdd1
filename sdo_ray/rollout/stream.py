"""The stream from prompts to contributions, as a Ray Data pipeline.

PacedSchedule (one actor, no CPU)          --> Sampler (actor pool) --> Ray Train workers
makes a batch once its policy version exists   calls the reward actors   one block, one contribution
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import ray.data

from sdo_ray.prompts.inputs import Row
from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout.paced_schedule import PacedSchedule
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.records import SamplerConfig
from sdo_ray.rollout.sampler import Sampler
from sdo_ray.rollout.watch import Watch
from sdo_ray.sealed import Sealed, made_there


def contribution_stream(
    prompts: Sequence[str],
    config: SamplerConfig,
    *,
    inputs: Sequence[Row] = (),
    start: int,
    stop: int,
    batch_size: int,
    max_policy_lag: int,
    policies: Policies,
    reward_actors: Mapping[str, Any],
    watch: Watch,
    sampler: type = Sampler,
) -> ray.data.Dataset:
    """The contributions to updates [start, stop), one block each, in order if the reader sets `preserve_order`.

    Policy versions after `start` are forgotten: trainers that died after their last checkpoint made them.

    Args:
        prompts: the prompts to learn on.
        config: of the samplers.
        inputs: of each prompt; may be empty.
        start: first update.
        stop: the update after the last.
        batch_size: rows of an update.
        max_policy_lag: updates that a sampling policy may be behind.
        policies: where versions are published.
        reward_actors: handles by reward name.
        watch: is told what the samplers do.
        sampler: the class of the samplers.
    """
    ray.get(watch.actor.reset.remote())
    blocks = partial(
        schedule,
        list(prompts),
        inputs=inputs,
        seed=config.seed,
        batch_size=batch_size,
        sampler_batch_size=config.samplers.rows_per_contribution,
        start=start,
        stop=stop,
    )
    source = PacedSchedule(blocks, max_policy_lag=max_policy_lag, policies=policies, ready=policies.go_back(start))
    # An actor, and not a task, which Ray Data may fuse with the samplers and gives up on after some crashes.
    dataset = ray.data.read_datasource(
        source, compute=ray.data.ActorPoolStrategy(size=1), override_num_blocks=1, num_cpus=0
    )
    dataset = dataset.map_batches(
        made_there(sampler),
        fn_constructor_kwargs={"make": Sealed.of(partial(sampler, config, policies, reward_actors, watch))},
        compute=ray.data.ActorPoolStrategy(
            size=config.samplers.count,
            max_tasks_in_flight_per_actor=config.samplers.in_flight,
            max_concurrent_calls_per_actor=config.samplers.in_flight,
            enable_true_multi_threading=True,
        ),
        batch_size=1,  # a sampler batch is one row; with GPUs Ray Data refuses None
        batch_format="pyarrow",
        num_cpus=config.samplers.num_cpus,
        num_gpus=config.samplers.num_gpus,
    )
    # Of this dataset alone. A row goes on when it is made, and is not gathered with others into a block of 128 MiB; and
    # all batches whose policy exists go to the samplers at once: of two at a time they would get ten a second.
    dataset.context.target_max_block_size = 1
    dataset.context._max_num_blocks_in_streaming_gen_buffer = None
    return dataset

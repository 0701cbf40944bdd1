"""The stream from prompts to contributions, as a Ray Data pipeline.

PacedSchedule (one actor, no CPU)          --> Sampler (actor pool) --> Ray Train workers
makes a batch once its policy version exists   calls the reward actors   one block, one contribution
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray.data

from sdo_ray.prompts.inputs import Row
from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout.paced_schedule import PacedSchedule
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.watch import Watch
from sdo_ray.sealed import Sealed, made_there

if TYPE_CHECKING:
    from sdo_ray.rollout.sampler_config import SamplerConfig


@dataclass(frozen=True)
class SamplerPool:
    """The actors that sample."""

    name: str
    """Of their class, which Ray shows."""
    make: Sealed[Callable[[], Callable[[pa.Table], pa.Table]]]
    """Makes one, where it works."""
    count: int
    in_flight: int
    """Batches in the hands of one."""
    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class ContributionStream:
    """Makes the stream from an update on; Ray Train's controller does, at every start of the trainers.

    It opens nothing of what samplers are made of, and imports none of it.
    """

    blocks: Callable[..., Iterator[pa.Table]]
    """Called with `start`, an update: the sampler batches from there on."""
    max_policy_lag: int
    policies: Policies
    watch: Watch
    samplers: SamplerPool

    def __call__(self, start: int) -> ray.data.Dataset:
        """The contributions from update `start` on, one block each, in order if the reader sets `preserve_order`.

        Policy versions after `start` are forgotten: trainers that died after their last checkpoint made them.
        """
        ray.get(self.watch.actor.reset.remote())
        source = PacedSchedule(
            partial(self.blocks, start=start),
            max_policy_lag=self.max_policy_lag,
            policies=self.policies,
            ready=self.policies.go_back(start),
        )
        # An actor, and not a task, which Ray Data may fuse with the samplers and gives up on after some crashes.
        dataset = ray.data.read_datasource(
            source, compute=ray.data.ActorPoolStrategy(size=1), override_num_blocks=1, num_cpus=0
        )
        samplers = self.samplers
        dataset = dataset.map_batches(
            made_there(samplers.name),
            fn_constructor_kwargs={"make": samplers.make},
            compute=ray.data.ActorPoolStrategy(
                size=samplers.count,
                max_tasks_in_flight_per_actor=samplers.in_flight,
                max_concurrent_calls_per_actor=samplers.in_flight,
                enable_true_multi_threading=True,
            ),
            batch_size=1,  # a sampler batch is one row; with GPUs Ray Data refuses None
            batch_format="pyarrow",
            num_cpus=samplers.num_cpus,
            num_gpus=samplers.num_gpus,
        )
        # Of this dataset alone. A row goes on when it is made, and is not gathered with others into a block of 128 MiB;
        # and all batches whose policy exists go to the samplers at once: of two at a time they would get ten a second.
        dataset.context.target_max_block_size = 1
        dataset.context._max_num_blocks_in_streaming_gen_buffer = None
        return dataset


def contribution_stream(
    prompts: Sequence[str],
    config: SamplerConfig,
    sampler: type,
    *,
    inputs: Sequence[Row] = (),
    stop: int,
    batch_size: int,
    max_policy_lag: int,
    policies: Policies,
    reward_actors: Mapping[str, Any],
    watch: Watch,
) -> ContributionStream:
    """The contributions to updates until `stop`.

    Args:
        prompts: the prompts to learn on.
        config: of the samplers.
        sampler: the class of the samplers, called with `config`, `policies`, `reward_actors` and `watch`.
        inputs: of each prompt; may be empty.
        stop: the update after the last.
        batch_size: rows of an update.
        max_policy_lag: updates that a sampling policy may be behind.
        policies: where versions are published.
        reward_actors: handles by reward name.
        watch: is told what the samplers do.
    """
    blocks = partial(
        schedule,
        list(prompts),
        inputs=inputs,
        seed=config.seed,
        batch_size=batch_size,
        sampler_batch_size=config.samplers.rows_per_contribution,
        stop=stop,
    )
    pool = SamplerPool(
        sampler.__name__,
        Sealed.of(partial(sampler, config, policies, reward_actors, watch)),
        config.samplers.count,
        config.samplers.in_flight,
        config.samplers.num_cpus,
        config.samplers.num_gpus,
    )
    return ContributionStream(blocks, max_policy_lag, policies, watch, pool)

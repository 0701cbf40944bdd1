"""What each worker of the Ray Train group runs.

loop over updates u
    wait for        this worker's contributions to u, from the samplers through Ray Data
    add up, step    over all workers and samples, by DeepSpeed
    rank 0          publishes version u + 1, files the report; samplers waiting for it go on
    every n updates a checkpoint, written meanwhile
    all             end where the driver has decided so; what it decided comes back for the report
"""

from __future__ import annotations

import logging
import math
import queue
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ray.train
import torch
import torch.distributed

from rewards.pulls import Memory
from sdo_ray.models.fingerprint import fingerprint
from sdo_ray.models.settings import ModelSettings
from sdo_ray.policy_gradient import Decay
from sdo_ray.rollout.policy_store import Policies, Publisher
from sdo_ray.rollout.records import Contribution
from sdo_ray.rollout.tensors import dump_tensors, load_tensors, with_average
from sdo_ray.rollout.watch import Disagreement, Watch
from sdo_ray.storage import RunDirectory
from sdo_ray.training.arriving import Arrived
from sdo_ray.training.averaging import Average
from sdo_ray.training.channel import Channel
from sdo_ray.training.checkpoints import AVERAGE, COMPANION, read_average, read_companion
from sdo_ray.training.decisions import RollBack, Stop
from sdo_ray.training.engine import make_engine, make_step, policy_weights
from sdo_ray.training.gathering import check_rows, gather_numbers
from sdo_ray.training.history import forget_reports, write_reports
from sdo_ray.training.modules import Denoisers, Policy
from sdo_ray.training.optimizer import learning_rate
from sdo_ray.training.records import UpdateReport, summarize
from sdo_ray.training.saving import Saver, restore
from sdo_ray.training.settings import TrainerSettings, TrainingSettings

logger = logging.getLogger(__name__)

LOG_EVERY = 30.0
"""Seconds of waiting between two log lines."""


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know."""

    model: ModelSettings
    training: TrainingSettings
    trainers: TrainerSettings
    contributions_per_update: int
    """Over all workers; divisible by their number."""
    rewards: tuple[str, ...]
    """Keys of the rewards that every sample has a score of."""
    initial_policy: bytes
    """Policy version 0, safetensors."""
    policies: Policies
    """Where versions are published."""
    channel: Channel
    """Where reports go."""
    run: RunDirectory
    """Where they are kept, with checkpoints."""
    samples_per_prompt: int = 1
    """More in groups."""
    companion_decay: Decay | None = None
    """Of an average of the policies that the samplers get beside the newest, for plans that learn by it."""
    watch: Watch | None = None
    """Knows what samplers have in hand."""
    lost_after: float = math.inf
    """Seconds after which a sampler that is not heard of is lost."""
    damaged: frozenset[str] = frozenset()
    """Names of the checkpoints not to go on from, see `checkpoints.why_not`."""
    whole: ray.train.Checkpoint | None = None
    """The one to go on from where the newest is among these; None is from the start."""

    @property
    def rows_per_contribution(self) -> int:
        """Prompts of a sampler batch."""
        return self.training.batch_size // self.contributions_per_update


def train_worker(worker: WorkerConfig, arrived: Arrived) -> None:
    """Train to the end.

    Args:
        worker: what to do.
        arrived: this worker's contributions.

    Raises:
        RuntimeError: if the stream ends early, a contribution arrives out of turn, or a sampler is lost, for which the
            group has to start again.
    """
    per_worker = worker.contributions_per_update // ray.train.get_context().get_world_size()
    weights = load_tensors(worker.initial_policy)
    here = worker.training.backward == "trainer"
    module = Denoisers(worker.model, weights, worker.trainers.dtype) if here else Policy(weights)
    del weights  # of a whole model they are large
    _agree(worker, "the weights that trainers begin with", module.state_dict())
    engine = make_engine(module, worker.training, worker.trainers, per_worker)
    training, start, memory, averaged, accompanied = worker.training, 0, Memory(), None, None
    saver, reports = Saver(worker.run, worker.channel), list[UpdateReport]()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None and Path(checkpoint.path).name in worker.damaged:
        checkpoint = worker.whole
    if checkpoint is not None:
        made = restore(engine, checkpoint)
        start, memory = made.update, made.memory
        averaged, accompanied = read_average(checkpoint), read_companion(checkpoint)
    if torch.distributed.get_rank() == 0:
        forget_reports(worker.run, start)
        write_reports(worker.run, made.reports if checkpoint is not None else ())
    with Publisher(worker.policies) as publisher:
        policy, averages = policy_weights(engine), dict[str, Average]()
        if training.average and policy:
            averages[AVERAGE] = Average(averaged or policy, training.average)
        if worker.companion_decay is not None and policy:
            averages[COMPANION] = Average(accompanied or policy, worker.companion_decay)
        _publish(publisher, start, policy, averages, memory)
        if torch.distributed.get_rank() == 0:
            _agree(worker, f"the weights of policy version {start}", policy)
        for update in range(start, training.updates):
            began = time.monotonic()
            mine: list[Contribution] = []
            terms = module.terms(_taken(arrived, update, per_worker, worker, mine))
            waited = time.monotonic() - began
            samples = worker.rows_per_contribution * worker.samples_per_prompt
            everyone = gather_numbers(mine, worker.rewards, samples, engine.device)
            check_rows(everyone, update, worker.contributions_per_update, worker.rows_per_contribution)
            samples = sum(contribution.num_samples for contribution in mine)
            norm = make_step(engine, terms, samples, learning_rate(training, update))
            report = summarize(everyone, gradient_norm=norm or 0.0, waiting=waited, seconds=time.monotonic() - began)
            if norm is None:
                logger.warning(
                    "update %d changes nothing: its gradient is not finite, though its batches' own were", update
                )
                report = report.without_step()
            reports.append(report)
            memory = memory.after(report.pulls)
            policy = policy_weights(engine)
            for average in averages.values():
                average.add(policy, update + 1)
            _publish(publisher, update + 1, policy, averages, memory)
            done, every, ending = update + 1, training.checkpoint_every, _file(worker.channel, report, engine.device)
            if ending is RollBack:
                return
            if done % every == 0 or done == training.updates or ending is not None:
                means = {file: average.weights for file, average in averages.items()}
                saver.save(engine, done, reports, memory, policy, means)
                reports.clear()
            if ending is not None:
                return


def _agree(worker: WorkerConfig, what: str, weights: Mapping[str, torch.Tensor]) -> None:
    """End the run if others have other weights."""
    if worker.watch is None:
        return
    try:
        worker.watch.agree(what, f"trainer {torch.distributed.get_rank()}", fingerprint(weights))
    except Disagreement as error:
        worker.channel.give_up(str(error))
        raise


def _taken(
    arrived: Arrived, update: int, count: int, worker: WorkerConfig, numbers: list[Contribution]
) -> Iterator[Contribution]:
    """This worker's contributions to an update, as they arrive; what is small of them is kept in `numbers`.

    Previews go to the driver from here.
    """
    for _ in range(count):
        contribution = _next(arrived, update, worker)
        if contribution.preview is not None:
            worker.channel.preview(update, contribution.preview)
        numbers.append(contribution.numbers())
        yield contribution


def _next(arrived: Arrived, update: int, worker: WorkerConfig) -> Contribution:
    while True:
        try:
            table = arrived.get(timeout=LOG_EVERY)
            break
        except queue.Empty:
            # A warning, because processes of Ray write nothing below to their log files.
            logger.warning("update %d waits for a contribution from the samplers", update)
            # Ray Data keeps a batch for the actor that has it, until that one has a place again.
            if worker.watch is not None and (lost := worker.watch.lost(worker.lost_after)):
                raise RuntimeError(f"lost: {'; '.join(lost)}") from None
    if isinstance(table, BaseException):
        raise table
    if table is None:
        raise RuntimeError(f"the stream of contributions ended before update {update}")
    [contribution] = Contribution.from_arrow(table)
    if contribution.update != update:
        raise RuntimeError(f"a contribution to update {contribution.update} arrived while update {update} is made")
    return contribution


def _publish(
    publisher: Publisher,
    version: int,
    policy: Mapping[str, torch.Tensor],
    averages: Mapping[str, Average],
    memory: Memory,
) -> None:
    """Publish the policy, the average that goes with it and what is known of the rewards, by one worker."""
    if torch.distributed.get_rank() == 0:
        given = with_average(policy, averages[COMPANION].weights) if COMPANION in averages else policy
        publisher.publish(version, dump_tensors(given, memory))


ENDINGS: tuple[type[Stop] | type[RollBack] | None, ...] = (None, Stop, RollBack)


def _file(channel: Channel, report: UpdateReport, device: torch.device) -> type[Stop] | type[RollBack] | None:
    """File the report, by one worker, and tell all whether training ends, and how."""
    ending = torch.zeros(1, dtype=torch.int64, device=device)
    if torch.distributed.get_rank() == 0:
        decided = channel.report(report)
        ending += ENDINGS.index(None if decided is None else type(decided))
    torch.distributed.broadcast(ending, src=0)
    return ENDINGS[int(ending)]

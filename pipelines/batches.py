"""Batches of a run's prompts that nothing is learned on: what a command measures on."""

from __future__ import annotations

from sdo_ray.config.fidelity import FidelityRunSettings
from sdo_ray.config.schedule import ScheduleSettings
from sdo_ray.prompts.read import read_prompts
from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout.records import PromptBatch


def first_batches(settings: FidelityRunSettings | ScheduleSettings, count: int) -> tuple[PromptBatch, ...]:
    """The first `count` batches of `samplers.batch_size` prompts, in the order of the run's seed."""
    size = settings.samplers.batch_size
    blocks = schedule(
        read_prompts(settings.prompts.train, settings.prompts.column),
        seed=settings.run.seed,
        batch_size=size,
        sampler_batch_size=size,
        start=0,
        stop=count,
        inputs=settings.inputs(),
    )
    return tuple(PromptBatch.from_arrow(block) for block in blocks)

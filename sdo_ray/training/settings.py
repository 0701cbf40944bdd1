"""Settings of the updates and of the trainers that make them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sdo_ray.rollout.settings import Backward
from sdo_ray.settings import Settings


class TrainerSettings(Settings):
    """The Ray Train workers."""

    count: int = Field(1, ge=1, description="Number of workers; DeepSpeed shards the optimizer over them.")
    num_cpus: float = Field(1.0, ge=0, description="CPU cores of each.")
    num_gpus: float = Field(
        0.0, ge=0, le=1, description="GPUs of each: 0, or 1; a part of one only where there is one worker."
    )
    zero_stage: Literal[1, 2, 3] = Field(
        2,
        description="DeepSpeed ZeRO: 1 shards the optimizer's state, 2 the gradients as well, 3 the denoiser's weights "
        "as well, with `training.backward: trainer`.",
    )
    max_failures: int = Field(
        3, ge=0, description="How often the group is restarted from the last checkpoint when a worker dies."
    )

    @model_validator(mode="after")
    def _one_device_each(self) -> Self:
        if self.count > 1 and 0 < self.num_gpus < 1:
            raise ValueError(
                f"trainers.num_gpus is {self.num_gpus:g} of each of {self.count} workers, which may be given one GPU "
                "together, and NCCL takes one a worker; use 1, or trainers.count: 1"
            )
        return self


class TrainingSettings(Settings):
    """The policy updates."""

    updates: int = Field(100, ge=1, description="Policy updates in the run.")
    batch_size: int = Field(32, ge=1, description="Samples an update learns from, over all samplers.")
    learning_rate: float = Field(3e-4, gt=0, description="AdamW step size.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW decay, which pulls the adapter back to the base model.")
    max_grad_norm: float = Field(1.0, gt=0, description="The update's gradient is clipped to this norm.")
    max_policy_lag: int = Field(
        0,
        ge=0,
        description="How many updates the policy that samples may be behind. 0 waits, and is exactly reproducible; "
        "more lets sampling and training overlap.",
    )
    backward: Backward = Field(
        "sampler",
        description="Where the denoiser's backward pass runs. `sampler`: where the images are made; gradients of "
        "what is trained travel. `trainer`: the trainers hold the denoiser and run the kept steps again; their inputs "
        "and the gradient there travel, little whatever the size of what is trained.",
    )
    max_idle_updates: int = Field(
        3,
        ge=1,
        description="The run ends after so many updates in a row that learn nothing, their gradient being exactly "
        "0, or of whose samples more than `max_skipped_share` is skipped.",
    )
    max_skipped_share: float = Field(
        0.5, ge=0, le=1, description="Share of an update's samples that may be skipped, see `max_idle_updates`."
    )
    checkpoint_every: int = Field(10, ge=1, description="Updates between checkpoints; the last is always kept.")
    dry_batch: bool = Field(
        True,
        description="Before a cluster is started, try a tiny batch on the driver's CPU, so that what would make "
        "batches fail is said then. A large model is tried with few layers and random weights.",
    )

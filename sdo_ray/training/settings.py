"""Settings of the updates and of the trainers that make them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sdo_ray.rollout.settings import Backward
from sdo_ray.settings import MAY_CHANGE, ON_PURPOSE, Settings

OptimizerName = Literal["adamw", "adamw-8bit", "adafactor", "lion", "muon"]


class TrainerSettings(Settings):
    """The Ray Train workers."""

    count: Annotated[int, MAY_CHANGE] = Field(
        1, ge=1, description="Number of workers; DeepSpeed shards the optimizer over them."
    )
    num_cpus: Annotated[float, MAY_CHANGE] = Field(1.0, ge=0, description="CPU cores of each.")
    num_gpus: Annotated[float, MAY_CHANGE] = Field(
        0.0, ge=0, le=1, description="GPUs of each: 0, or 1; a part of one only where there is one worker."
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2,
        description="DeepSpeed ZeRO: 1 shards the optimizer's state, 2 the gradients as well, 3 the denoiser's weights "
        "as well, with `training.backward: trainer`. 0 shards nothing, which optimizers other than AdamW need.",
    )
    dtype: Annotated[Literal["float32", "bfloat16"], ON_PURPOSE] = Field(
        "float32",
        description="Type of what is trained as trainers compute with it, and as `zero_stage: 3` spreads it, with "
        "`training.backward: trainer`. With `bfloat16`, which `model.dtype` has to be too, they compute as samplers. "
        "The weights that are stepped, published and checkpointed, the optimizer's state and the sums of gradients are "
        "float32 all the same. See docs/method.md, Half precision.",
    )
    offload: Annotated[Literal["none", "cpu"], MAY_CHANGE] = Field(
        "none",
        description="`cpu`: the optimizer's state and the weights that it steps are in the memory of the CPU, and are "
        "stepped there.",
    )
    max_failures: Annotated[int, MAY_CHANGE] = Field(
        3, ge=0, description="How often the group is restarted from the last checkpoint when a worker dies."
    )

    @model_validator(mode="after")
    def _offloads_what_is_sharded(self) -> Self:
        if self.offload == "cpu" and not self.zero_stage:
            raise ValueError("offload is DeepSpeed's of what ZeRO shards, and zero_stage is 0; use 1, 2 or 3")
        return self

    @model_validator(mode="after")
    def _rounds_what_is_stepped_elsewhere(self) -> Self:
        if self.dtype == "bfloat16" and not self.zero_stage:
            raise ValueError(
                "dtype is 'bfloat16', in which small steps are lost, and zero_stage is 0, which keeps no other weights "
                "to make them with; use 1, 2 or 3, or dtype: float32"
            )
        return self

    @model_validator(mode="after")
    def _one_device_each(self) -> Self:
        if self.count > 1 and 0 < self.num_gpus < 1:
            raise ValueError(
                f"trainers.num_gpus is {self.num_gpus:g} of each of {self.count} workers, which may be given one GPU "
                "together, and NCCL takes one a worker; use 1, or trainers.count: 1"
            )
        return self


class ScheduleSettings(Settings):
    """The step size as a share of `training.learning_rate`, by the update."""

    warmup: Annotated[int, ON_PURPOSE] = Field(0, ge=0, description="Updates over which it rises to 1, along a line.")
    decay: Annotated[Literal["none", "linear", "cosine"], ON_PURPOSE] = Field(
        "none", description="How it falls after that."
    )
    until: Annotated[int, ON_PURPOSE] = Field(
        0,
        ge=0,
        description="The update at which it has fallen to `floor`, where it stays; for `decay` other than none.",
    )
    floor: Annotated[float, ON_PURPOSE] = Field(0.0, ge=0, le=1, description="The share that it falls to.")

    @model_validator(mode="after")
    def _falls_after_it_has_risen(self) -> Self:
        if self.decay != "none" and self.until <= self.warmup:
            raise ValueError(
                f"until is {self.until}, and has to be above warmup = {self.warmup} with decay = {self.decay!r}; give "
                "`training.updates`, to fall over the whole run"
            )
        if self.decay == "none" and (self.until or self.floor):
            raise ValueError(
                "until and floor say how the step size falls, and decay is 'none'; choose linear or cosine"
            )
        return self


class TrainingSettings(Settings):
    """The policy updates."""

    updates: Annotated[int, MAY_CHANGE] = Field(100, ge=1, description="Policy updates in the run.")
    max_hours: Annotated[float | None, MAY_CHANGE] = Field(
        None, gt=0, description="Training ends, with the policy it has, once its updates took so many hours."
    )
    max_samples: Annotated[int | None, MAY_CHANGE] = Field(
        None, ge=1, description="Training ends, with the policy it has, once so many samples are made."
    )
    batch_size: int = Field(32, ge=1, description="Samples an update learns from, over all samplers.")
    learning_rate: Annotated[float, ON_PURPOSE] = Field(
        3e-4, gt=0, description="Step size, the highest of the schedule."
    )
    optimizer: OptimizerName = Field(
        "adamw",
        description="`adamw`; `adamw-8bit`, with moments of 8 bits, of the extra `bitsandbytes`; `adafactor`, which "
        "keeps sums of rows and columns in place of the second moment, and no first one; `lion`, which steps by signs, "
        "each weight by `learning_rate`, of the extra `bitsandbytes`; `muon`, which makes each "
        "matrix' step orthogonal, of AdamW's size. All but `adamw` keep whole matrices: `trainers.zero_stage: 0`.",
    )
    schedule: ScheduleSettings = Field(
        default_factory=ScheduleSettings, description="How the step size changes; by default not at all."
    )
    weight_decay: Annotated[float, ON_PURPOSE] = Field(
        0.0,
        ge=0,
        description="Decoupled decay, as AdamW's. It pulls what is trained, of whatever kind, to its values at the "
        "start, those of the base model.",
    )
    anchor: Annotated[float, ON_PURPOSE] = Field(
        0.0,
        ge=0,
        description="Weight, in units of the mixed reward, of an anchor to the base model: the mean squared distance "
        "of what a kept step gives the scheduler from what the base model would. Costs one more denoiser call a kept "
        "step. For rewards' gradients; plans for others have `output_kl`.",
    )
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of an exponential moving average of the policies, such as 0.99, which is then what is "
        "evaluated and handed out. Samplers go on with the newest policy. 0 hands out the newest.",
    )
    max_grad_norm: Annotated[float, ON_PURPOSE] = Field(
        1.0, gt=0, description="The update's gradient is clipped to this norm."
    )
    max_policy_lag: Annotated[int, ON_PURPOSE] = Field(
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
    max_idle_updates: Annotated[int, MAY_CHANGE] = Field(
        3,
        ge=1,
        description="The run ends after so many updates in a row that learn nothing, their gradient being exactly "
        "0, or of whose samples more than `max_skipped_share` is skipped; one that has diverged is rolled back.",
    )
    max_skipped_share: Annotated[float, MAY_CHANGE] = Field(
        0.5, ge=0, le=1, description="Share of an update's samples that may be skipped, see `max_idle_updates`."
    )
    checkpoint_every: Annotated[int, MAY_CHANGE] = Field(
        10, ge=1, description="Updates between checkpoints; the last is always kept."
    )
    dry_batch: Annotated[bool, MAY_CHANGE] = Field(
        True,
        description="Before a cluster is started, try a tiny batch on the driver's CPU, so that what would make "
        "batches fail is said then. A large model is tried with few layers and random weights.",
    )

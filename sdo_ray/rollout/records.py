"""The records that travel between prompts, samplers and trainers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import safetensors.torch
import torch

from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.calls import ShippedCall, dump_calls, load_calls
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings
from sdo_ray.rollout.settings import Backward, MixSettings, PlanSettings, SamplerSettings


@dataclass(frozen=True)
class SamplerConfig:
    """What a sampler needs to know."""

    seed: int
    """The run's seed."""
    model: ModelSettings
    sampling: LearnedSamplingSettings
    plan: PlanSettings
    mix: MixSettings
    samplers: SamplerSettings
    backward: Backward
    preview_prompts: tuple[str, ...]
    """Prompts of the preview grid."""
    preview_rows: frozenset[int]
    """First rows of the batches whose sampler also makes the preview grid."""


@dataclass(frozen=True)
class PromptBatch:
    """What one sampler call works on."""

    update: int
    """The update these rows belong to, from 0."""
    rows: tuple[int, ...]
    """Row numbers in the run; with the run's seed they fix noise and kept steps."""
    prompts: tuple[str, ...]
    """One prompt a row."""

    @classmethod
    def from_arrow(cls, table: pa.Table) -> PromptBatch:
        """Read a table written by `prompts.schedule`."""
        [row] = table.to_pylist()
        return cls(row["update"], tuple(row["rows"]), tuple(row["prompts"]))


@dataclass(frozen=True)
class Seconds:
    """Where the time of one contribution went; wall-clock seconds."""

    sampling: float
    """The pipeline call: no-graph steps, kept steps, decoding."""
    rewarding: float
    """Waiting for the reward actors."""
    backward: float
    """From the image gradient to the adapter's gradient."""


@dataclass(frozen=True)
class Contribution:
    """What one sampler batch adds to an update."""

    update: int
    """The update it belongs to."""
    policy_version: int
    """The policy that sampled; version v has v updates in it. `update - policy_version` is the lag."""
    first_row: int
    """Row number of its first sample."""
    num_samples: int
    """Samples whose gradient is in `gradient`."""
    num_skipped: int
    """Samples skipped because a reward or a gradient was not finite."""
    scores: dict[str, Sequence[float | None]]
    """Raw scores of every reward, one a sample of the batch in row order, skipped ones too; None: there is none."""
    mixed: list[float]
    """Mixed reward of the samples that are in the gradient."""
    step_norms: dict[int, float]
    """Kept step -> norm of the reward gradient at the denoiser's output there, over the batch."""
    seconds: Seconds
    gradient: dict[str, torch.Tensor]
    """Parameter name -> float32 gradient of the SUM of the mixed reward over the samples counted; on the CPU. Empty if
    the trainers make it, from `calls`."""
    calls: tuple[ShippedCall, ...] = ()
    """The kept denoiser calls, if their backward pass is left to the trainers."""
    failure: str | None = None
    """Why the batch as a whole was skipped; None if it was not."""
    preview: bytes | None = None
    """A PNG with the run's preview prompts under `policy_version`, from the batch that was asked for it."""

    def to_arrow(self) -> pa.Table:
        """One row: numbers as JSON, tensors as safetensors."""
        numbers = {
            name: value for name, value in vars(self).items() if name not in ("gradient", "calls", "preview", "seconds")
        }
        return pa.table(
            {
                "numbers": pa.array([json.dumps(numbers | {"seconds": asdict(self.seconds)})], pa.string()),
                "gradient": pa.array([dump_tensors(self.gradient)], pa.large_binary()),
                "calls": pa.array([dump_calls(self.calls)], pa.large_binary()),
                "preview": pa.array([self.preview], pa.large_binary()),
            }
        )

    @classmethod
    def from_arrow(cls, row: Mapping[str, object]) -> Contribution:
        """Read back one row of `to_arrow`."""
        numbers = json.loads(str(row["numbers"]))
        numbers["seconds"] = Seconds(**numbers["seconds"])
        numbers["step_norms"] = {int(step): norm for step, norm in numbers["step_norms"].items()}
        gradient, calls, preview = row["gradient"], row["calls"], row["preview"]
        assert isinstance(gradient, bytes)
        assert isinstance(calls, bytes)
        assert preview is None or isinstance(preview, bytes)
        return cls(**numbers, gradient=load_tensors(gradient), calls=load_calls(calls), preview=preview)


def dump_tensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Tensors by name as safetensors bytes."""
    return safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})


def load_tensors(data: bytes) -> dict[str, torch.Tensor]:
    """The inverse of `dump_tensors`, in the order of the names."""
    # safetensors gives them in an order that differs between processes, and collectives need one that does not.
    return dict(sorted(safetensors.torch.load(data).items()))

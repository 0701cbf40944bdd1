"""The records that travel between prompts, samplers and trainers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import safetensors.torch
import torch

from rewards.pulls import Memory, Pull
from sdo_ray.models.settings import ModelSettings
from sdo_ray.prompts.inputs import COLUMN, Row, from_column
from sdo_ray.rollout.calls import ShippedCall, dump_calls, load_calls
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings
from sdo_ray.rollout.reward_settings import MixSettings
from sdo_ray.rollout.settings import Backward, GradientType, LearningSamplerSettings, PlanSettings
from sdo_ray.rollout.wire import pack, unpack


@dataclass(frozen=True)
class HeldOut:
    """What samplers look at besides, and when."""

    prompts: tuple[str, ...]
    indices: tuple[int, ...]
    """With the run's seed they fix the noise, that of the comparison at the run's end."""
    rows: frozenset[int]
    """First rows of the batches whose sampler also looks."""
    evaluators: Mapping[str, Any]
    """Reward actors by key, see `sdo_ray.rollout.reward_pool`."""
    inputs: tuple[Row, ...] = ()
    """What else the pipeline is given, of each prompt; empty if it is given no more."""


@dataclass(frozen=True)
class SamplerConfig:
    """What a sampler needs to know."""

    seed: int
    """The run's seed."""
    model: ModelSettings
    sampling: LearnedSamplingSettings
    plan: PlanSettings
    mix: MixSettings
    samplers: LearningSamplerSettings
    backward: Backward
    max_policy_lag: int
    """Updates that a sampling policy may be behind."""
    anchor: float
    """Weight of an anchor to the base model; 0: none."""
    preview_prompts: tuple[str, ...]
    """Prompts of the preview grid."""
    preview_inputs: tuple[Row, ...]
    """Of each, see `PromptBatch`."""
    preview_rows: frozenset[int]
    """First rows of the batches whose sampler also makes the preview grid."""
    held_out: HeldOut | None = None
    """What samplers look at besides."""


@dataclass(frozen=True)
class HeldOutMeans:
    """How one version of the policy does on the run's held-out prompts."""

    version: int
    """Updates in it; version 0 is the base."""
    means: dict[str, float]
    """Key of an evaluator -> its mean score."""


@dataclass(frozen=True)
class PromptBatch:
    """What one sampler call works on."""

    update: int
    """The update these rows belong to, from 0."""
    rows: tuple[int, ...]
    """Row numbers in the run; with the run's seed they fix noise and kept steps."""
    prompts: tuple[str, ...]
    """One prompt a row."""
    inputs: tuple[Row, ...] = ()
    """What else the pipeline is given, of each row; empty if it is given no more."""

    def parts(self, size: int) -> list[PromptBatch]:
        """Its rows in order, `size` at a time."""
        cuts = [slice(start, start + size) for start in range(0, len(self.rows), size)]
        return [replace(self, rows=self.rows[cut], prompts=self.prompts[cut], inputs=self.inputs[cut]) for cut in cuts]

    def __str__(self) -> str:
        """For messages, which count updates from 1."""
        return f"update {self.update + 1}, rows {self.rows[0]} to {self.rows[-1]}"

    @classmethod
    def from_arrow(cls, table: pa.Table) -> PromptBatch:
        """Read a table written by `prompts.schedule`."""
        [row] = table.to_pylist()
        inputs = tuple(from_column(row.get(COLUMN, ())))
        return cls(row["update"], tuple(row["rows"]), tuple(row["prompts"]), inputs)


@dataclass(frozen=True)
class Seconds:
    """Where the time of one contribution went; wall-clock seconds."""

    sampling: float
    """The pipeline call: no-graph steps, kept steps, decoding."""
    rewarding: float
    """Waiting for the reward actors."""
    backward: float
    """From the image gradient to the adapter's gradient."""


GROUP_NUMBERS = (
    "flat_share",
    "spread",
    "missing",
    "sign_agreement",
    "gradient_norm",
    "group_norm",
    "cosine",
    "log_ratio",
    "clipped",
    "masked",
    "kl",
    "deviation",
    "contrast",
    "anchor",
)
"""What `Contribution.groups` may have."""


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
    gradient: Gradient = field(default_factory=Gradient.none)
    """Of the SUM of the mixed reward over the samples counted; on the CPU. None of a batch without such samples, or if
    the trainers make it, from `calls`."""
    calls: tuple[ShippedCall, ...] = ()
    """The kept denoiser calls, if their backward pass is left to the trainers and any sample counts."""
    groups: dict[str, float] = field(default_factory=dict)
    """By `GROUP_NUMBERS`, of a batch in groups: `flat_share` of the groups whose rewards are all equal, `spread` of the
    others, samples `missing`, `sign_agreement` of halves; with gradients too, `gradient_norm`, `group_norm` and their
    `cosine`; with a loss that corrects, mean absolute `log_ratio` of the newest policy to the one that sampled, and the
    share that is `clipped` or `masked`; with an anchor, `kl` from the base model; of
    forward-process methods, squared `deviation` from the average policy, and `contrast` of NFT's weights. With or
    without groups, `anchor`: squared distance of the kept steps from the base model's."""
    pulls: dict[str, Pull] = field(default_factory=dict)
    """Reward key -> how it pulls on the batch's images."""
    cosines: dict[str, float] = field(default_factory=dict)
    """"KEY/KEY" of two rewards -> mean cosine of their pulls over the batch's images."""
    failure: str | None = None
    """Why the batch, or one of those that were added up, was skipped as a whole; None if it was not."""
    num_splits: int = 0
    """How often the batch, or a part of it, was made in halves for want of memory."""
    held_out: HeldOutMeans | None = None
    """What the batch's sampler was to look at besides."""
    preview: bytes | None = None
    """A PNG with the run's preview prompts under `policy_version`, from the batch that was asked for it."""

    def with_scores(self, keys: Iterable[str], others: Mapping[str, Sequence[float | None]]) -> Contribution:
        """The same with the scores of other rewards too, in the order of `keys`; None where there are none."""
        scores = {**self.scores, **others}
        return replace(self, scores={key: scores.get(key, [None] * self.num_rows) for key in keys})

    @property
    def num_rows(self) -> int:
        """Samples of the batch."""
        return self.num_samples + self.num_skipped

    def numbers(self) -> Contribution:
        """The same without what is large."""
        return replace(self, gradient=Gradient.none(), calls=(), preview=None)

    def to_arrow(self, dtype: GradientType = "float32") -> pa.Table:
        """One row, a record of `wire`.

        Args:
            dtype: what the gradient travels as.
        """
        large = ("gradient", "calls", "preview", "seconds", "pulls", "held_out")
        header = {name: value for name, value in vars(self).items() if name not in large}
        header |= {"seconds": asdict(self.seconds), "dtype": dtype, "shapes": self.gradient.shapes}
        header["pulls"] = {key: asdict(pull) for key, pull in self.pulls.items()}
        header["held_out"] = None if self.held_out is None else asdict(self.held_out)
        parts = {"gradient": self.gradient.vector.to(getattr(torch, dtype))}
        if self.calls:
            parts["calls"] = _from_bytes(dump_calls(self.calls))
        if self.preview is not None:
            parts["preview"] = _from_bytes(self.preview)
        return pa.table({"record": pack(header, parts)})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> list[Contribution]:
        """Read back the rows of `to_arrow`; gradients share the table's memory and must not be written to."""
        return [cls._read(*record) for chunk in table.column("record").chunks for record in unpack(chunk)]

    @classmethod
    def _read(cls, header: dict[str, Any], parts: Mapping[str, torch.Tensor]) -> Contribution:
        dtype, shapes = getattr(torch, header.pop("dtype")), header.pop("shapes")
        header["seconds"] = Seconds(**header["seconds"])
        header["pulls"] = {key: Pull(**pull) for key, pull in header["pulls"].items()}
        header["held_out"] = HeldOutMeans(**header["held_out"]) if header.get("held_out") else None
        header["step_norms"] = {int(step): norm for step, norm in header["step_norms"].items()}
        return cls(
            **header,
            gradient=Gradient(parts["gradient"].view(dtype), shapes),
            calls=load_calls(_to_bytes(parts["calls"])) if "calls" in parts else (),
            preview=_to_bytes(parts["preview"]) if "preview" in parts else None,
        )


def dump_tensors(tensors: Mapping[str, torch.Tensor], memory: Memory | None = None) -> bytes:
    """Tensors by name as safetensors bytes, and what a run knows of its rewards, in their metadata."""
    metadata = None if memory is None else {"memory": json.dumps(memory.to_json())}
    return safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, metadata)


def with_average(weights: Mapping[str, torch.Tensor], average: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A policy and an average of those before it, of the same names, to travel as one."""
    return {**weights, **{f"{_AVERAGE}{name}": tensor for name, tensor in average.items()}}


def parted(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
    """The inverse of `with_average`; None in the place of an average that there is not."""
    average = {name.removeprefix(_AVERAGE): x for name, x in tensors.items() if name.startswith(_AVERAGE)}
    return {name: x for name, x in tensors.items() if not name.startswith(_AVERAGE)}, average or None


_AVERAGE = "average of "


def memory_of(data: bytes) -> Memory:
    """What `dump_tensors` was given besides the tensors; that of a run before its first update if nothing."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    said = header.get("__metadata__", {}).get("memory")
    return Memory() if said is None else Memory.from_json(json.loads(said))


def load_tensors(data: bytes) -> dict[str, torch.Tensor]:
    """The inverse of `dump_tensors`, in the order of the names."""
    # safetensors gives them in an order that differs between processes, and collectives need one that does not.
    return dict(sorted(safetensors.torch.load(data).items()))


def _from_bytes(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _to_bytes(data: torch.Tensor) -> bytes:
    return data.numpy().tobytes()


def means(numbers: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Of each name, over those that have it."""
    given = list(numbers)
    names = dict.fromkeys(name for one in given for name in one)
    return {name: statistics.fmean(one[name] for one in given if name in one) for name in names}

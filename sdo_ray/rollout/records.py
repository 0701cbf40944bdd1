"""The records that travel between prompts, samplers and trainers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import torch

from rewards.pulls import Pull
from sdo_ray.prompts.inputs import COLUMN, Row, from_column
from sdo_ray.rollout.calls import ShippedCall, dump_calls, load_calls
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.looks import HeldOutMeans
from sdo_ray.rollout.settings import GradientType
from sdo_ray.rollout.wire import pack, unpack


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


def _from_bytes(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _to_bytes(data: torch.Tensor) -> bytes:
    return data.numpy().tobytes()

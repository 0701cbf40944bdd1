"""Where the models under comparison come from, so that any worker can load them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sdo_ray.models.adapter_file import FILE, load_adapter
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import attach_working_copy, load_model
from sdo_ray.models.quantised import Rounding
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.tensors import load_tensors

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class ModelSource(Protocol):
    """A model that can be loaded; it travels to the workers, so it is small or holds references."""

    def load(self, device: str) -> DiffusionPipeline:
        """A frozen pipeline, ready to sample."""


@dataclass(frozen=True)
class WholeModel:
    """A complete pipeline."""

    base: str
    """`zoo://NAME`, a directory that every node reads, or a hub id."""
    dtype: str
    """Type of all weights."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Component -> type of its weights, where it is another."""
    rounding: Mapping[str, Rounding] = field(default_factory=dict)
    """Component -> how its weights are rounded."""

    def load(self, device: str) -> DiffusionPipeline:
        """See `ModelSource`."""
        return load_pipeline(self.base, self.dtype, device, self.types, self.rounding)


@dataclass(frozen=True)
class AdaptedModel:
    """A pipeline with a LoRA, whose file travels to the workers."""

    base: str
    """As for `WholeModel`."""
    dtype: str
    """Type of the base's weights."""
    adapter: bytes
    """A file that `load_lora_weights` takes."""
    types: Mapping[str, str] = field(default_factory=dict)
    """As for `WholeModel`."""

    def load(self, device: str) -> DiffusionPipeline:
        """See `ModelSource`."""
        pipeline = load_pipeline(self.base, self.dtype, device, self.types)
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / FILE
            file.write_bytes(self.adapter)
            load_adapter(pipeline, str(file))
        return pipeline


@dataclass(frozen=True)
class PolicyModel:
    """A version of the policy of a run that is going on."""

    model: ModelSettings
    policies: Policies
    """Where versions are published."""
    version: int

    def load(self, device: str) -> DiffusionPipeline:
        """See `ModelSource`."""
        pipeline = load_model(self.model, device)
        _, weights = self.policies.newest(self.version)
        assert weights is not None
        set_parameters(attach_working_copy(pipeline.components, self.model), load_tensors(weights))
        return pipeline

"""A registered model as one that workers load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sdo_ray.models.adapter_file import load_adapter
from sdo_ray.models.load import load_pipeline
from sdo_ray.registry.versions import adapter_beside, reference_of, resolve_model
from sdo_ray.secrets import read_secret_files, take_credentials_from_tracking_uri
from sdo_ray.tracking.server import without_password

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class RegisteredModel:
    """A version in MLflow's registry; every node fetches its own copy."""

    reference: str
    """`models:/NAME/VERSION`."""
    tracking_uri: str
    """The MLflow server, without a password: this travels to other processes, which have their own."""
    dtype: str
    """Type of the weights."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Component -> type of its weights, where it is another."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tracking_uri", without_password(self.tracking_uri))

    def load(self, device: str) -> DiffusionPipeline:
        """A frozen pipeline, ready to sample."""
        # A worker of a job has the variables that name the job's secrets, and not what its driver made of them.
        read_secret_files()
        take_credentials_from_tracking_uri()
        mine = os.environ.get("MLFLOW_TRACKING_URI", "")
        uri = mine if without_password(mine) == self.tracking_uri else self.tracking_uri
        directory = resolve_model(self.reference, uri)
        pipeline = load_pipeline(reference_of(directory), self.dtype, device, self.types)
        if (adapter := adapter_beside(directory)) is not None:
            load_adapter(pipeline, str(adapter))
        return pipeline

"""Settings of what MLflow keeps."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sdo_ray.settings import MAY_CHANGE, Settings


class ExperimentSettings(Settings):
    """The MLflow server itself is named by the environment variable MLFLOW_TRACKING_URI; without it, a database file in
    the run's storage is used."""

    experiment: str = Field("sdo-ray", min_length=1, description="MLflow experiment of the run.")


class TrackingSettings(ExperimentSettings):
    """The MLflow server itself is named by the environment variable MLFLOW_TRACKING_URI; without it, a database file in
    the run's storage is used."""

    register_as: str | None = Field(
        None,
        pattern=r"^[^/:@'\"%]+$",
        description="Name of the registered model that the result becomes a version of; none, if not given.",
    )
    copy_hub_base: bool = Field(
        False,
        description="Copy a base model from the hub into the registered model, rather than name its id and commit. "
        "Other base models are always copied.",
    )
    preview_every: Annotated[int, MAY_CHANGE] = Field(10, ge=1, description="Updates between image grids.")
    preview_prompts: list[str] = Field(
        default_factory=list, description="Prompts of the image grid, sampled with the same noise every time."
    )

"""What a pipeline makes, told from its class, and how fast its sounds are played."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rewards.modality import SHAPES, Made, Modality
from sdo_ray.models.load import load_component_config, load_index, pipeline_class

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_MADE: Mapping[str, Modality] = {
    "images": "image",
    "image": "image",
    "rgb": "image",
    "frames": "video",
    "video": "video",
    "audios": "audio",
}
"""First field of what a pipeline returns -> what is in it."""

SOUNDING = ("vocoder", "vae")
"""Components whose configurations say how fast their sounds are."""


def modality_of(pipeline: type[DiffusionPipeline]) -> Modality:
    """What a class of pipelines makes; "any" where that cannot be told before one was made.

    A class of the user's own says it by its attribute `modality`. Those of diffusers return a dataclass of their
    module, whose first field is called so.

    Raises:
        ValueError: the attribute is none of those that there are.
    """
    said = getattr(pipeline, "modality", None)
    if said is not None:
        if said not in SHAPES:
            raise ValueError(f"{pipeline.__name__}.modality must be one of {', '.join(SHAPES)}, got {said!r}")
        return said
    module = vars(sys.modules[pipeline.__module__])
    outputs = [x for x in module.values() if isinstance(x, type) and x.__name__.endswith("Output") and _fields(x)]
    made = {_MADE.get(_fields(x)[0], "any") for x in outputs if ".pipelines." in x.__module__}
    return made.pop() if len(made) == 1 else "any"


def made_by(base: str) -> Made:
    """What a base model makes, from its configuration alone; see `modality_of`.

    Raises:
        SettingsError: see `pipeline_class`.
    """
    return made_of(pipeline_class(base), base)


def made_of(pipeline: type[DiffusionPipeline], base: str) -> Made:
    """The same of a model whose pipeline's class is known.

    Raises:
        SettingsError: see `load_index`.
    """
    modality = modality_of(pipeline)
    return Made(modality, _configured_rate(base) if modality == "audio" else None)


def sampling_rate(pipeline: DiffusionPipeline) -> int:
    """Of the sounds that it makes, in Hz, from the configuration of its vocoder or autoencoder.

    Raises:
        ValueError: none of them says.
    """
    for part in (pipeline, *(pipeline.components.get(name) for name in SOUNDING)):
        if rate := getattr(getattr(part, "config", None), "sampling_rate", None):
            return int(rate)
    raise ValueError(f"no configuration of {type(pipeline).__name__} says its sampling_rate")


def _configured_rate(base: str) -> int | None:
    """As `sampling_rate`, from the configurations of a model that is not loaded; None where none of them says."""
    index = load_index(base)
    configurations = [index]
    for name in SOUNDING:
        if (index.get(name) or [None])[0] is not None:
            configurations.append(load_component_config(base, name))
    return next((int(config["sampling_rate"]) for config in configurations if config.get("sampling_rate")), None)


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []

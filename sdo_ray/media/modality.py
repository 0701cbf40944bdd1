"""What a pipeline makes, told from its class, and how fast its sounds are played."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rewards.modality import SHAPES, Modality
from sdo_ray.models.load import pipeline_class

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


def made_by(base: str) -> Modality:
    """What a base model makes, from its configuration alone; see `modality_of`.

    Raises:
        SettingsError: see `pipeline_class`.
    """
    return modality_of(pipeline_class(base))


def sampling_rate(pipeline: DiffusionPipeline) -> int:
    """Of the sounds that it makes, in Hz, from the configuration of its vocoder or autoencoder.

    Raises:
        ValueError: none of them says.
    """
    for part in (pipeline, *(pipeline.components.get(name) for name in ("vocoder", "vae"))):
        if rate := getattr(getattr(part, "config", None), "sampling_rate", None):
            return int(rate)
    raise ValueError(f"no configuration of {type(pipeline).__name__} says its sampling_rate")


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []

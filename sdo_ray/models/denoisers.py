"""Which parts of a pipeline are its denoisers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdo_ray.models.load import reading, resolve
from sdo_ray.settings import SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DENOISERS = ("unet", "transformer", "transformer_2")
"""Where diffusers pipelines keep their denoisers; one with experts for two noise ranges has both transformers."""


def find_denoisers(pipeline: DiffusionPipeline) -> dict[str, torch.nn.Module]:
    """The pipeline's denoisers by component name.

    Raises:
        SettingsError: if there is none.
    """
    found = {name: module for name in DENOISERS if isinstance(module := getattr(pipeline, name, None), torch.nn.Module)}
    if not found:
        raise _no_denoiser(type(pipeline).__name__, list(pipeline.components))
    return found


def denoiser_skeletons(base: str) -> dict[str, torch.nn.Module]:
    """The denoisers of a base model without weights, on the meta device; only its configuration files are read.

    Raises:
        SettingsError: if there is none, it is not a class of diffusers, or its configuration cannot be read.
    """
    import diffusers
    from accelerate import init_empty_weights

    location = resolve(base)
    with reading(base):
        index = diffusers.DiffusionPipeline.load_config(location)
    found: dict[str, torch.nn.Module] = {}
    for name in DENOISERS:
        library, kind = index.get(name) or (None, None)
        if kind is None:
            continue
        if library != "diffusers":
            raise SettingsError(
                f"model.base: the {name} of {base!r} is {library}.{kind}, code from outside diffusers; it is not run."
            )
        model_class = getattr(diffusers, kind)
        with init_empty_weights(), reading(base):
            found[name] = model_class.from_config(model_class.load_config(location, subfolder=name))
        found[name].requires_grad_(False)
    if not found:
        raise _no_denoiser(index["_class_name"], [name for name in index if not name.startswith("_")])
    return found


def _no_denoiser(pipeline: str, components: list[str]) -> SettingsError:
    return SettingsError(
        f"model.base: {pipeline} has no denoiser among {', '.join(DENOISERS)}; it has {', '.join(components)}."
    )

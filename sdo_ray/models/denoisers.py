"""Which parts of a pipeline are its denoisers, and which its text encoders; and the denoisers by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from sdo_ray.backprop.denoisers import denoiser_names, denoisers_of, names_of_denoisers
from sdo_ray.models.load import ZOO, component_class, load_index, pipeline_class, reading, resolve
from sdo_ray.models.own import is_own
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.reference import parse
from sdo_ray.models.skeletons import built, configuration
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.zoo.text import text_encoder_directory

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
"""Where diffusers pipelines keep their text encoders."""


def find_denoisers(pipeline: DiffusionPipeline) -> dict[str, torch.nn.Module]:
    """The pipeline's denoisers by component name.

    Raises:
        SettingsError: if there is none.
    """
    found = denoisers_of(pipeline)
    if not found:
        raise _no_denoiser(type(pipeline).__name__, list(pipeline.components))
    return found


def find_text_encoders(pipeline: DiffusionPipeline) -> dict[str, torch.nn.Module]:
    """The pipeline's text encoders by component name; there may be none."""
    return {
        name: module for name in TEXT_ENCODERS if isinstance(module := getattr(pipeline, name, None), torch.nn.Module)
    }


def denoisers_among(components: Mapping[str, object]) -> dict[str, torch.nn.Module]:
    """Those of a pipeline's components, by name, that are its denoisers."""
    modules = {name: part for name, part in components.items() if isinstance(part, torch.nn.Module)}
    return {name: modules[name] for name in denoiser_names(modules)}


def text_encoders_among(components: Mapping[str, object]) -> dict[str, torch.nn.Module]:
    """Those of a pipeline's components, by name, that are its text encoders; there may be none."""
    return {name: part for name in TEXT_ENCODERS if isinstance(part := components.get(name), torch.nn.Module)}


def denoiser_classes(base: str) -> dict[str, str]:
    """The classes of a base model's denoisers by component name; only its configuration is read.

    Raises:
        SettingsError: there is none, one is not a class of diffusers, or the configuration cannot be read.
    """

    index = load_index(base)
    found: dict[str, str] = {}
    for name in denoiser_names([name for name, entry in index.items() if entry != [None, None]]):
        library, found[name] = index[name]
        if library != "diffusers" and not is_own(base, library):
            raise _foreign(base, name, f"{library}.{found[name]}", "diffusers")
    if not found:
        raise _no_denoiser(index["_class_name"], [name for name in index if not name.startswith("_")])
    return found


def load_denoisers(
    base: str, dtype: str = "float32", types: Mapping[str, str] | None = None
) -> dict[str, torch.nn.Module]:
    """A base model's denoisers alone, frozen, on the CPU; the arguments and errors are those of `load_pipeline`."""
    location, found = resolve(base), {}
    for name, kind in _denoiser_types(base).items():
        with quiet_libraries(), reading(base):
            own = getattr(torch, (types or {}).get(name, dtype))
            found[name] = kind.from_pretrained(
                location, subfolder=name, dtype=own, use_safetensors=True, **parse(base).of_weights
            )
        found[name].requires_grad_(False).eval()
    return found


def denoiser_skeletons(base: str) -> dict[str, torch.nn.Module]:
    """The denoisers of a base model without weights, on the meta device; only its configuration files are read.

    Raises:
        SettingsError: as `denoiser_classes`.
    """
    from accelerate import init_empty_weights

    found = {}
    for name, kind in _denoiser_types(base).items():
        with init_empty_weights(), reading(base):
            found[name] = built(kind, configuration(kind, base, name))
        found[name].requires_grad_(False)
    return found


def _denoiser_types(base: str) -> dict[str, Any]:
    """See `denoiser_classes`."""
    pipeline_class(base)  # imports the modules of one of the user's own
    index = load_index(base)
    return {name: component_class(index[name][0], kind) for name, kind in denoiser_classes(base).items()}


def text_encoder_skeletons(base: str) -> dict[str, torch.nn.Module]:
    """The text encoders of a base model without weights, on the meta device; there may be none.

    Raises:
        SettingsError: one is not a class of transformers, or its configuration cannot be read.
    """
    import transformers
    from accelerate import init_empty_weights

    index = load_index(base)
    found: dict[str, torch.nn.Module] = {}
    for name in TEXT_ENCODERS:
        library, kind = index.get(name) or (None, None)
        if kind is None:
            continue
        if library != "transformers":
            raise _foreign(base, name, f"{library}.{kind}", "transformers")
        encoder = getattr(transformers, kind)
        # The zoo's models leave their text encoder out, because a package brings it.
        place = parse(base).of_configurations | {"subfolder": name} if not base.startswith(ZOO) else {}
        location = resolve(base) if place else text_encoder_directory()
        with init_empty_weights(), reading(base):
            found[name] = encoder(encoder.config_class.from_pretrained(location, **place))
        found[name].requires_grad_(False)
    return found


def _foreign(base: str, component: str, kind: str, library: str) -> SettingsError:
    got = f"the {component} of {base!r} is {kind}, code from outside {library}"
    return SettingsError(Problem("base", got, "it is not run", "name another model"))


def _no_denoiser(pipeline: str, components: list[str]) -> SettingsError:
    got = f"{pipeline} has no denoiser among {names_of_denoisers()}"
    return SettingsError(Problem("base", got, f"it has {', '.join(components)}", "name another model"))

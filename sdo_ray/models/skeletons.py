"""A base model's networks without weights, from its configuration files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sdo_ray.backprop.bypass import CHECKS
from sdo_ray.models.load import check_components, component_class, component_entries, load_index, reading, resolve
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.models.reference import parse


def is_network(kind: Any) -> bool:
    """Whether a component's class has weights."""
    return issubclass(kind, torch.nn.Module)


def skeletons(base: str, wanted: Callable[[Any], bool] = is_network) -> dict[str, torch.nn.Module]:
    """Networks of a base model, frozen, at their true size, on the meta device, by component.

    Args:
        base: the base model.
        wanted: whether it is one of a class that is wanted; by default all are.

    Raises:
        SettingsError: the base cannot be read, or has code of its own.
    """
    from accelerate import init_empty_weights

    check_components(base)
    found = {}
    with quiet_libraries(), reading(base):
        for name, kind in component_classes(load_index(base)).items():
            if wanted(kind):
                with init_empty_weights(include_buffers=True):
                    found[name] = built(kind, configuration(kind, base, name))
                found[name].requires_grad_(False).eval()
    return found


def component_classes(index: Mapping[str, Any]) -> dict[str, Any]:
    """The classes of the components that a `model_index.json` names, but for those that look at finished images."""
    return {
        name: component_class(library, kind)
        for name, (library, kind) in component_entries(index).items()
        if library is not None and kind is not None and name not in CHECKS
    }


def is_of_transformers(kind: Any) -> bool:
    """Whether it is a network of transformers."""
    import transformers

    return issubclass(kind, transformers.PreTrainedModel)


def configuration(kind: Any, base: str, name: str) -> dict[str, Any]:
    """Of a network; the values are plain."""
    if is_of_transformers(kind):
        found: dict[str, Any] = read_part(kind.config_class.from_pretrained, base, name).to_dict()
    else:
        found = read_part(kind.load_config, base, name)
    return found


def built(kind: Any, config: Mapping[str, Any]) -> Any:
    """A network of `configuration`."""
    return kind(kind.config_class.from_dict(dict(config))) if is_of_transformers(kind) else kind.from_config(config)


def read_part(read: Callable[..., Any], base: str, name: str) -> Any:
    """What `read` makes of a component's folder."""
    return read(resolve(base), subfolder=name, **parse(base).of_configurations)

"""Layers by the endings of their names, as PEFT's `target_modules` finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from sdo_ray.settings import Problem, SettingsError


def matching_layers(module: torch.nn.Module, endings: Sequence[str], whose: str, setting: str) -> list[torch.nn.Module]:
    """The linear and convolution layers whose names end with one of `endings`.

    Args:
        module: where to look.
        endings: of dotted names, each a whole number of parts.
        whose: in words, for the error.
        setting: where the endings were given: its name in `ModelSettings`.

    Raises:
        SettingsError: if one of the endings matches nothing.
    """
    if unmatched := [ending for ending in endings if not has_layer(module, ending)]:
        raise SettingsError(
            Problem(
                setting,
                f"no linear or convolution layer of {whose} ends with {', '.join(unmatched)}",
                f"its layers end with {', '.join(layer_endings(module))}",
                "choose among them",
            )
        )
    return [layer for name, layer in _layers(module) if any(ends_with(name, ending) for ending in endings)]


def layer_endings(module: torch.nn.Module) -> list[str]:
    """The last parts of the names of its linear and convolution layers, sorted."""
    return sorted({name.rsplit(".", 1)[-1] for name, _ in _layers(module)})


def has_layer(module: torch.nn.Module, ending: str) -> bool:
    """Whether a linear or convolution layer's name ends so."""
    return any(ends_with(name, ending) for name, _ in _layers(module))


def ends_with(name: str, ending: str) -> bool:
    """Whether the last parts of a dotted name are `ending`."""
    return name == ending or name.endswith("." + ending)


def _layers(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d):
            yield name, layer

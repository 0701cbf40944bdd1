"""Feature networks by name, and which of their options are paths."""

from __future__ import annotations

import importlib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdo_ray.settings import Problem, SettingsError

BUILT_IN: Mapping[str, str] = {
    "efficientnet": "sdo_ray.evaluation.features:EfficientNet",
    "transformers": "sdo_ray.evaluation.features:TransformersVision",
}
"""Name -> import path."""


def feature_class(name: str) -> type:
    """The class behind a name or an import path.

    Raises:
        SettingsError: there is none.
    """
    module_name, _, class_name = BUILT_IN.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name, None) if class_name else None
    except ModuleNotFoundError:
        found = None
    if not isinstance(found, type):
        legal = f"there are {', '.join(BUILT_IN)}, or an import path 'package.module:Class' to your own"
        raise SettingsError(Problem("name", f"there is no {name!r}", legal))
    return found


def path_options(features: Mapping[str, Any]) -> set[str]:
    """The options of a network that are annotated as a `Path`.

    Args:
        features: the section as it was given. A name of nothing has no options here; it is refused elsewhere.
    """
    try:
        network: Any = feature_class(str(features.get("name", "")))
    except SettingsError:
        return set()
    hints = typing.get_type_hints(network.__init__)
    return {option for option, kind in hints.items() if Path in (kind, *typing.get_args(kind))}

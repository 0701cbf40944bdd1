"""Pipelines of the user's own, named by their import paths as rewards are.

Code that comes with a model is never run. A class that the user names is the user's code, wherever the model is from.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sdo_ray.models.reference import parse
from sdo_ray.settings import Problem, SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def own_class(path: str) -> type[DiffusionPipeline]:
    """The class of an import path.

    Args:
        path: "package.module:Class".

    Raises:
        SettingsError: there is none, it cannot be imported, or is no pipeline.
    """
    from diffusers import DiffusionPipeline

    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        fix = "put its module beside the settings file, or its folder on PYTHONPATH, here and on the workers"
        raise SettingsError(Problem("pipeline", f"{path!r} cannot be imported: {error}", fix=fix)) from None
    if not isinstance(found, type) or not issubclass(found, DiffusionPipeline):
        got = f"{path!r} is {'not there' if found is None else 'no subclass of diffusers.DiffusionPipeline'}"
        raise SettingsError(Problem("pipeline", got, fix="name a class that is one"))
    return found


def is_own(base: str, module: str) -> bool:
    """Whether a module is of the package that the reference's own pipeline is of."""
    own = parse(base).pipeline
    return own is not None and own.partition(":")[0].partition(".")[0] == module.partition(".")[0]

"""A user's own folder or file may be called `pipelines` or `rewards` too: in a job, the packages beside this one win.

Python, and Ray's workers, look for modules in the directory that a job starts from before they look at what is
installed. A job therefore says where these two are, in its own process (`pipelines/__init__.py`, `sdo_ray/__main__.py`)
and in every process of its cluster (`WORKER_SETUP`). A program that only uses `sdo_ray` is not touched.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAMES = ("pipelines", "rewards")
HOME = str(Path(__file__).resolve().parents[1])

WORKER_SETUP = f"{__name__}.set_up_worker"
"""What Ray calls in each new process of a job, by name."""
BESIDE_SETTINGS = "SDO_BESIDE_SETTINGS"
"""The variable that tells workers on the same machine where the settings file is."""


class _OwnPackages(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [HOME], target) if fullname in NAMES else None


def prefer_own_packages() -> None:
    """From now on an import of `pipelines` or `rewards` gets the one beside this package."""
    if not any(isinstance(finder, _OwnPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OwnPackages())


def find_modules_beside(settings: Path) -> None:
    """Let modules beside a settings file be imported, here and by the workers of a cluster that this process starts.

    What is installed comes before them.
    """
    directory = str(settings.resolve().parent)
    os.environ[BESIDE_SETTINGS] = directory
    _append(directory)


def set_up_worker() -> None:
    """Both of the above, in a worker."""
    prefer_own_packages()
    if directory := os.environ.get(BESIDE_SETTINGS):
        _append(directory)


def _append(directory: str) -> None:
    if directory not in sys.path:
        sys.path.append(directory)

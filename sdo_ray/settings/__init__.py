"""What every settings class is made of, and what bad input gets."""

from sdo_ray.settings.base import Settings
from sdo_ray.settings.paths import IsPath, PathsAmong, RelativePath, SettingsPath, relative_paths
from sdo_ray.settings.problems import Problem, Problems, SettingsError, at, under
from sdo_ray.settings.resuming import MAY_CHANGE, ON_PURPOSE, Mark, changeable, is_marked

__all__ = [
    "MAY_CHANGE",
    "ON_PURPOSE",
    "IsPath",
    "Mark",
    "PathsAmong",
    "Problem",
    "Problems",
    "RelativePath",
    "Settings",
    "SettingsError",
    "SettingsPath",
    "at",
    "changeable",
    "is_marked",
    "relative_paths",
    "under",
]

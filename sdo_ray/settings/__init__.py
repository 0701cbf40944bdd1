"""What every settings class is made of, and what bad input gets."""

from sdo_ray.settings.base import Settings
from sdo_ray.settings.paths import IsPath, PathsAmong, RelativePath, SettingsPath, relative_paths
from sdo_ray.settings.problems import Problem, Problems, SettingsError, at, under

__all__ = [
    "IsPath",
    "PathsAmong",
    "Problem",
    "Problems",
    "RelativePath",
    "Settings",
    "SettingsError",
    "SettingsPath",
    "at",
    "relative_paths",
    "under",
]

"""What every settings class is made of, and what bad input gets."""

from sdo_ray.settings.base import Settings
from sdo_ray.settings.problems import Problem, Problems, SettingsError, at, under

__all__ = ["Problem", "Problems", "Settings", "SettingsError", "at", "under"]

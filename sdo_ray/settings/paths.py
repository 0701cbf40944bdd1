"""Which settings are paths: their types say it, so that none can be forgotten."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from sdo_ray.settings.base import Settings


class IsPath:
    """Marks the type of a path."""


def at_home(path: str) -> str:
    """The path with the home directory of whoever reads it in place of `~`."""
    return str(Path(path).expanduser()) if path.startswith("~") else path


SettingsPath = Annotated[str, IsPath(), AfterValidator(at_home)]
"""Type of a setting that names a file or directory, or a URI of one. A relative path in a settings file starts at that
file's directory; one that starts with `~` at the home directory where the job runs."""


@dataclass(frozen=True)
class PathsAmong:
    """Marks the type of a mapping of options, such as those of a class that a setting beside it names."""

    find: Callable[[Mapping[str, Any]], Collection[str]]
    """The section that the mapping is in, as it was given -> the names of those options that are paths."""


@dataclass(frozen=True)
class RelativePath:
    """A relative path among settings as they were given."""

    setting: str
    """Its dotted name."""
    holder: Any
    """The section or list that it is in."""
    key: Any
    """Its place there."""

    @property
    def path(self) -> str:
        """The path itself."""
        return str(self.holder[self.key])

    def start_at(self, directory: Path) -> None:
        """Make it the absolute path that it is from `directory`."""
        self.holder[self.key] = str((directory / self.path).resolve())


def relative_paths(kind: type[Settings], given: Mapping[str, Any]) -> Iterator[RelativePath]:
    """Every relative path among settings of a kind, wherever the settings' types have one.

    Args:
        kind: their class.
        given: plain values, as read from YAML; they need not be legal.
    """
    for key in given:
        if (field := kind.model_fields.get(kind.old_names.get(key, key))) is not None:
            yield from _found(field.annotation, field.metadata, str(key), given, key)


def _found(kind: Any, marks: Collection[Any], setting: str, holder: Any, key: Any) -> Iterator[RelativePath]:
    """Relative paths in `holder[key]`, of the type `kind` with these marks."""
    value, origin, arguments = holder[key], typing.get_origin(kind), typing.get_args(kind)
    for mark in marks:
        if isinstance(mark, IsPath) and _is_relative(value):
            yield RelativePath(setting, holder, key)
        if isinstance(mark, PathsAmong) and isinstance(value, dict):
            for option in mark.find(holder):
                if _is_relative(value.get(option)):
                    yield RelativePath(f"{setting}.{option}", value, option)
    if origin is Annotated:
        yield from _found(arguments[0], arguments[1:], setting, holder, key)
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _found(argument, (), setting, holder, key)
    elif origin is list and isinstance(value, list):
        for number in range(len(value)):
            yield from _found(arguments[0], (), f"{setting}.{number}", value, number)
    elif origin is dict and isinstance(value, dict):
        for name in value:
            yield from _found(arguments[1], (), f"{setting}.{name}", value, name)
    elif isinstance(kind, type) and issubclass(kind, Settings) and isinstance(value, dict):
        for found in relative_paths(kind, value):
            yield RelativePath(f"{setting}.{found.setting}", found.holder, found.key)


def _is_relative(value: Any) -> bool:
    return isinstance(value, str) and "://" not in value and not value.startswith("~") and not Path(value).is_absolute()

"""From a YAML file and `--set a.b=c` to checked settings."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sdo_ray.config.strict_yaml import NotYaml, parse
from sdo_ray.secrets import redact, refuse_secrets
from sdo_ray.settings import Problem, Settings, SettingsError, relative_paths

S = TypeVar("S", bound=Settings)


def load_settings(
    kind: type[S], path: str | Path, overrides: Iterable[str] = (), *, changes: Mapping[str, Any] = MappingProxyType({})
) -> S:
    """Settings of type `kind` from a YAML file.

    Args:
        kind: the settings class.
        path: the file.
        overrides: "a.b=c", c in YAML; lists are indexed by number, as in `rewards.terms.0.weight=2`; `a=null` takes the
            section, mapping or list `a` back to its default.
        changes: the same as values, dotted name -> value.

    Raises:
        SettingsError: no such file, not YAML, secrets, unknown keys, wrong types or values; one line a problem.
    """
    data = _read(Path(path))
    for found in relative_paths(kind, data):
        found.start_at(Path(path).parent)
    for dotted, value in changes.items():
        _put(data, dotted, deepcopy(value))
    override(data, overrides)
    _drop_empty_sections(kind, data)
    return validated(kind, data)


def validated(kind: type[S], data: Any) -> S:
    """Settings of type `kind` from plain values.

    Raises:
        SettingsError: unknown keys, wrong types or values; one line a problem.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise SettingsError(*(_explain(kind, problem) for problem in error.errors())) from None


def read_settings(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """What a YAML file and overrides say, without defaults, and paths as they were written: on every machine the same.

    Args:
        path: the file.
        overrides: as for `load_settings`.

    Raises:
        SettingsError: no such file, not YAML, or secrets.
    """
    data = _read(Path(path))
    override(data, overrides)
    return data


def _read(path: Path) -> dict[str, Any]:
    try:
        data = parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise _no_settings(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise _no_settings(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _no_settings(f"{str(path)!r} is not text") from None
    except NotYaml as error:
        raise _no_settings(f"{str(path)!r} is not YAML: {redact(str(error))}") from None
    if not isinstance(data, dict):
        raise _no_settings(f"{str(path)!r} holds {type(data).__name__}, not sections such as `model:`")
    return data


def _no_settings(got: str) -> SettingsError:
    return SettingsError(Problem("", got, fix="give the path of a YAML file with settings"))


def override(data: dict[str, Any], overrides: Iterable[str]) -> None:
    """Make changes such as `a.b=c`, see `load_settings`, in plain values.

    Raises:
        SettingsError: one is none, or is a secret.
    """
    for change in overrides:
        _set(data, change)
    refuse_secrets(data)


def _drop_empty_sections(kind: type[BaseModel], data: dict[str, Any]) -> None:
    """A section, mapping or list that is null, as YAML reads a name with nothing below it, was not given."""
    for name, field in kind.model_fields.items():
        section, given = typing.get_origin(field.annotation) or field.annotation, data.get(name)
        if name not in data or not isinstance(section, type) or not issubclass(section, (BaseModel, dict, list)):
            continue
        if given is None:
            del data[name]
        elif isinstance(given, dict) and issubclass(section, BaseModel):
            _drop_empty_sections(section, given)


def _set(data: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise SettingsError(Problem("--set", f"got {redact(override)!r}", "it takes section.key=value"))
    try:
        value = parse(text)
    except NotYaml:
        raise SettingsError(
            Problem(f"--set {dotted}", f"{redact(text)!r} is not a YAML value", fix="quote it")
        ) from None
    _put(data, dotted, value)


def _put(data: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    place: Any = data
    for key in parents:
        if isinstance(place, list):
            place = place[_index(place, key, dotted)]
        elif isinstance(place, dict):
            if place.get(key) is None:  # an empty section is one that is not there
                place[key] = {}
            place = place[key]
        if not isinstance(place, dict | list):
            raise SettingsError(Problem(f"--set {dotted}", f"{key!r} is a value, not a section"))
    if isinstance(place, list):
        place[_index(place, last, dotted)] = value
    else:
        place[last] = value


def _index(place: list[Any], key: str, dotted: str) -> int:
    if not key.isdigit() or int(key) >= len(place):
        got = f"{key!r} is no position in a list of {len(place)}"
        raise SettingsError(Problem(f"--set {dotted}", got, "the first is 0"))
    return int(key)


def _explain(kind: type[BaseModel], found: Mapping[str, Any]) -> Problem:
    """What pydantic found, in the user's terms."""
    where, given = ".".join(str(part) for part in found["loc"]), found["input"]
    match found["type"]:
        case "extra_forbidden":
            names = list(_fields_at(kind, found["loc"][:-1]))
            close = difflib.get_close_matches(str(found["loc"][-1]), names, n=1)
            fix = f"did you mean {close[0]!r}?" if close else "remove it"
            return Problem(where, "unknown setting", f"there are {', '.join(names)}", fix)
        case "missing":
            return Problem(where, "missing", fix="it has no default, so give it")
        case "model_type":
            fields = ", ".join(_fields_at(kind, found["loc"]))
            return Problem(where, f"got {given!r}", f"it is a section with the settings {fields}")
    legal = f"{found['msg'][0].lower()}{found['msg'][1:]}"
    return Problem(where, f"got {given!r} ({type(given).__name__})", legal)


def _fields_at(kind: type[BaseModel], location: Iterable[Any]) -> Mapping[str, Any]:
    for part in location:
        if isinstance(part, int):
            continue
        annotation = kind.model_fields[part].annotation
        inner = next(
            (a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)), None
        )
        kind = inner or annotation  # type: ignore[assignment]
    return kind.model_fields

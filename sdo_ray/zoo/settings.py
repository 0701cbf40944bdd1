"""Settings from YAML: strict construction of dataclasses, with errors that name the field."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


def read_settings(cls: type[T], path: Path, overrides: typing.Sequence[str] = ()) -> T:
    """Reads a YAML file into the dataclass `cls`, after setting `a.b=value` overrides, whose values are YAML too.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown, missing or ill-typed field, or a value the dataclass refuses; the message has its path.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no settings file at {path}")
    tree = yaml.safe_load(path.read_text())
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ValueError(f"--set: got {override!r}; legal is FIELD.FIELD=VALUE")
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = yaml.safe_load(value)
    return build(cls, tree, "")


def build(cls: type[T], tree: Any, where: str) -> T:
    """Makes the dataclass `cls` from a mapping; `where` is the path of its fields in messages, "" at the top."""
    if not isinstance(tree, dict):
        raise ValueError(f"{where or 'settings'}: got {tree!r}; legal is a mapping")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := [name for name in tree if name not in fields]:
        raise ValueError(f"{_join(where, unknown[0])}: no such setting; legal are {', '.join(fields)}")
    empty = dataclasses.MISSING
    required = [n for n, f in fields.items() if f.default is empty and f.default_factory is empty]
    if missing := [name for name in required if name not in tree]:
        raise ValueError(f"{_join(where, missing[0])}: missing; it has no default")
    values = {name: _value(hints[name], value, _join(where, name)) for name, value in tree.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(_join(where, str(error))) from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: got {value!r}; legal is a list")
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    # YAML reads 5e-4 as text, and 1 where 1.0 is meant.
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    if type(value) is not hint:
        raise ValueError(f"{where}: got {value!r}; legal is {hint.__name__}")
    return value


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name

"""Which settings may be others when a run is resumed: their declarations say it."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from sdo_ray.settings.base import Settings


class MayChange:
    """Marks a setting that says where a run is worked on, how long or how often, and not what its mathematics is."""


MAY_CHANGE = MayChange()


def may_change(field: FieldInfo) -> bool:
    """Whether a setting may be another when the run is resumed."""
    return any(isinstance(mark, MayChange) for mark in field.metadata)


def changeable(kind: type[Settings], values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of those settings that may be others when a run is resumed.

    Args:
        kind: the settings' class.
        values: plain values; lists are named by position.
        prefix: of the names.
    """
    for name, value in values.items():
        field = kind.model_fields.get(name)
        if field is None:
            continue
        if may_change(field):
            yield f"{prefix}{name}"
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if not (isinstance(part, type) and issubclass(part, Settings)):
                continue
            if isinstance(value, Mapping):
                yield from changeable(part, value, f"{prefix}{name}.")
            elif isinstance(value, list):
                for number, item in enumerate(value):
                    yield from changeable(part, item, f"{prefix}{name}.{number}.")

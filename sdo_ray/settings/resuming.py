"""Which settings may be others when a run is resumed: their declarations say it."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from sdo_ray.settings.base import Settings


class Mark:
    """Of a setting, among the metadata of its field."""


MAY_CHANGE, ON_PURPOSE = Mark(), Mark()
"""Settings that may be others when a run is resumed: those that say where it is worked on, how long or how often; and
those of its mathematics that no state of it depends on, where it is said that they are meant."""


def is_marked(field: FieldInfo, mark: Mark) -> bool:
    """Whether a setting has a mark."""
    return any(found is mark for found in field.metadata)


def changeable(kind: type[Settings], values: Mapping[str, Any], mark: Mark, prefix: str = "") -> Iterator[str]:
    """The dotted names of those settings that have a mark.

    Args:
        kind: the settings' class.
        mark: `MAY_CHANGE` or `ON_PURPOSE`.
        values: plain values; lists are named by position.
        prefix: of the names.
    """
    for name, value in values.items():
        field = kind.model_fields.get(name)
        if field is None:
            continue
        if is_marked(field, mark):
            yield f"{prefix}{name}"
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if not (isinstance(part, type) and issubclass(part, Settings)):
                continue
            if isinstance(value, Mapping):
                yield from changeable(part, value, mark, f"{prefix}{name}.")
            elif isinstance(value, list):
                for number, item in enumerate(value):
                    yield from changeable(part, item, mark, f"{prefix}{name}.{number}.")

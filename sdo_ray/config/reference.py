"""The reference of all settings, made from their declarations; `python -m pipelines.reference` prints it."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
from pydantic.fields import FieldInfo

from sdo_ray.config.run import LongRunSettings
from sdo_ray.settings import MAY_CHANGE, ON_PURPOSE, IsPath, Mark, Settings, is_marked

EXAMPLE = "pipelines/configs/emoji.yaml"
REPOSITORY = Path(__file__).parents[2]

HEAD = """# Configuration

<!-- Change the settings' declarations, then: python -m pipelines.reference > docs/configuration.md -->

A run is one YAML file. `--set section.key=value` changes one setting on the command line, the value in YAML; lists are
indexed from 0, as in `--set rewards.terms.0.weight=2`, and `null` takes a section, mapping or list back to its
default, as in `--set model.train=full --set model.lora=null`. An unknown key, a value of another type and a combination
that cannot work are refused before anything starts. A relative path in a setting of type path starts at the directory
of the YAML file, one that `--set` gives at the working directory; so do `run.storage`, where results go, and models.

A whole run, `{example}`:

```yaml
{yaml}```

Where things are that belong to the machine and not to the run is said by the environment: `RAY_ADDRESS`, the cluster to
join (`ray job submit` sets it; without it, a run starts Ray on its machine), `RAY_AUTH_MODE` and `RAY_AUTH_TOKEN_PATH`,
its token, and `MLFLOW_TRACKING_URI`, the MLflow server (without it, a database file in the run's storage).
"""

RESUMED = {MAY_CHANGE: " *May be another when the run is resumed.*"}
CHANGED = {ON_PURPOSE: " *May be another when the run is resumed with `--change`.*"}
"""What a mark says; the latter of commands whose runs take changes."""

KINDS = {int: "integer", float: "number", str: "text", bool: "true or false"}


def reference(commands: Mapping[str, type[Settings]]) -> str:
    """All settings as Markdown: name, type, default, what is legal, what it does.

    Args:
        commands: those of `sdo` that take a settings file, and the class of what is in it.
    """
    text = (REPOSITORY / EXAMPLE).read_text()
    parts = [HEAD.format(example=EXAMPLE, yaml=text)]
    for command, kind in commands.items():
        parts.append(f"## `sdo {command}`\n")
        run = kind.model_fields.get("run")
        parts += _section(kind, RESUMED | (CHANGED if run and run.annotation is LongRunSettings else {}))
    return "\n".join(parts)


def _section(kind: type[Settings], said: Mapping[Mark, str], prefix: str = "", about: str = "") -> Iterator[str]:
    """A table of the section's own settings, then the sections in it."""
    inner = {name: found for name, field in kind.model_fields.items() if (found := _settings_in(field.annotation))}
    if prefix:
        yield f"### `{prefix.rstrip('.')}`\n"
    yield f"{about} {' '.join((kind.__doc__ or '').split())}\n".lstrip()
    own = [(name, field) for name, field in kind.model_fields.items() if name not in inner]
    if own:
        yield "| setting | type | default | legal | what it does |\n|---|---|---|---|---|"
        for name, field in own:
            cells = (
                f"`{prefix}{name}`",
                _type(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation),
                _default(field),
                _legal(field),
                (field.description or "") + "".join(said[mark] for mark in said if is_marked(field, mark)),
            )
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""
    for name, section in inner.items():
        field = kind.model_fields[name]
        if typing.get_origin(field.annotation) is list:
            legal = f", {legal}" if (legal := _legal(field)) else ""
            yield from _section(
                section, said, f"{prefix}{name}.N.", f"A list{legal}. {field.description or ''}".strip()
            )
        else:
            yield from _section(section, said, f"{prefix}{name}.", field.description or "")


def _settings_in(annotation: Any) -> type[Settings] | None:
    """The section, for a section or a list of them."""
    for part in (annotation, *typing.get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Settings):
            return part
    return None


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return "path" if any(isinstance(mark, IsPath) for mark in arguments[1:]) else _type(arguments[0])
    if origin is Literal:
        return _type(type(arguments[0]))
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if part is type(None) else _type(part) for part in arguments)
    return KINDS[annotation]


def _default(field: FieldInfo) -> str:
    return "needed" if field.is_required() else f"`{_yaml(field.get_default(call_default_factory=True))}`"


def _legal(field: FieldInfo) -> str:
    if typing.get_origin(field.annotation) is Literal:
        return ", ".join(f"`{_yaml(choice)}`" for choice in typing.get_args(field.annotation))
    said = []
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge():
                said.append(f"≥ {rule.ge}")
            case annotated_types.Gt():
                said.append(f"> {rule.gt}")
            case annotated_types.Le():
                said.append(f"≤ {rule.le}")
            case annotated_types.Lt():
                said.append(f"< {rule.lt}")
            case annotated_types.MultipleOf():
                said.append(f"a multiple of {rule.multiple_of}")
            case annotated_types.MinLen():
                said.append("not empty" if rule.min_length == 1 else f"{rule.min_length} or more")
            case _ if (pattern := getattr(rule, "pattern", None)) is not None:
                said.append(f"matches `{pattern}`")
    return ", ".join(said)


def _yaml(value: Any) -> str:
    """A value as one writes it in YAML."""
    return value if isinstance(value, str) and value else json.dumps(value)

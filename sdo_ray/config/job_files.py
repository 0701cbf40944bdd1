"""What a job's settings name: files that have to travel, and what has to be on the nodes already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdo_ray.config.cycle import CycleSettings
from sdo_ray.config.loading import read_settings
from sdo_ray.settings import Problem, Problems, Settings, relative_paths

STAGES = ("align", "evaluate", "promote")
"""Sections of a cycle that name a settings file."""


@dataclass(frozen=True)
class Named:
    """A settings file of the job, its own or a stage's, and what it says."""

    prefix: str
    """Of its settings, for messages: empty, or a stage's name with a dot."""
    kind: type[Settings]
    file: Path
    settings: Mapping[str, Any]


def settings_files(
    kind: type[Settings], config: Path, settings: Mapping[str, Any], kinds: Mapping[str, Any]
) -> list[Named]:
    """The job's own, and for a cycle those of its stages.

    Args:
        kind: class of the job's settings.
        config: its file.
        settings: what it says, as read from YAML, overrides included.
        kinds: stage -> class of its settings.
    """
    files = [Named("", kind, config, settings)]
    if kind is CycleSettings:
        for stage in STAGES:
            section = settings.get(stage) or {}
            if isinstance(section, Mapping) and (path := config.parent / str(section.get("config", ""))).is_file():
                files.append(Named(f"{stage}.", kinds[stage], path, read_settings(path)))
    return files


def named_files(files: list[Named], working: Path) -> set[Path]:
    """All that travels by name.

    Raises:
        SettingsError: something is not inside of `working`.
    """
    found = {file.file.resolve() for file in files}
    with Problems() as problems:
        for file in files:
            for path in relative_paths(file.kind, dict(file.settings)):
                if file.prefix and path.setting.startswith(("prompts.", "evaluation.prompts")):
                    continue  # the cycle prepares them
                # A path in the file starts at the file, one given by --set at the working directory.
                places = [(start / path.path).resolve() for start in (file.file.parent, working)]
                inside = [place for place in places if place.exists() and place.is_relative_to(working)]
                if inside:
                    found.add(inside[0])
                    continue
                got = f"{path.path!r} is not in {str(working)!r}, which is what travels"
                fix = "put it there, or name a --working-dir that holds it"
                problems.add(Problem(f"{file.prefix}{path.setting}", got, fix=fix))
    return found


def check_places(files: list[Named]) -> None:
    """Refuse storage and models that are of this machine alone.

    Raises:
        SettingsError: a relative storage, which goes away with the job; a model that is a directory here.
    """
    with Problems() as problems:
        for file in files:
            for setting, value in _storages(file):
                if "://" not in value and not Path(value).is_absolute():
                    got = f"{value!r} is relative, and a job's directory goes away with the cluster"
                    fix = "name storage that all nodes write, by an absolute path or a URI such as s3://bucket/path"
                    problems.add(Problem(f"{file.prefix}{setting}", got, fix=fix))
            for setting, value in _models(file):
                here = [start / value for start in (file.file.parent, Path.cwd())]
                if value.startswith((".", "~")) or any(
                    place.exists() for place in here if not Path(value).is_absolute()
                ):
                    got = f"{value!r} is of this machine, and models do not travel"
                    fix = "name a directory that all nodes read, by its absolute path, a hub id or a registered model"
                    problems.add(Problem(f"{file.prefix}{setting}", got, fix=fix))


def _storages(file: Named) -> Iterator[tuple[str, str]]:
    for section in ("run", "evaluation"):
        field = file.kind.model_fields.get(section)
        if field is None or file.prefix or "storage" not in getattr(field.annotation, "model_fields", {}):
            continue
        given = file.settings.get(section) or {}
        yield f"{section}.storage", str(given.get("storage", "runs")) if isinstance(given, Mapping) else "runs"


def _models(file: Named) -> Iterator[tuple[str, str]]:
    model = file.settings.get("model")
    if isinstance(model, Mapping) and isinstance(model.get("base"), str):
        yield "model.base", model["base"]
    models = file.settings.get("models")
    for role, choice in models.items() if isinstance(models, Mapping) else ():
        if file.prefix and role != "base":
            continue  # the cycle's own
        if isinstance(choice, str):
            yield f"models.{role}", choice
        elif isinstance(choice, Mapping):
            for part in ("model", "adapter"):
                if isinstance(choice.get(part), str):
                    yield f"models.{role}.{part}", choice[part]

"""A run and its settings belong together."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

from pydantic import Field, ValidationError

from sdo_ray.models.files import pinned
from sdo_ray.models.settings import ModelSettings
from sdo_ray.settings import MAY_CHANGE, ON_PURPOSE, Problem, Settings, SettingsError, changeable, relative_paths, under
from sdo_ray.storage import LONGEST_NAME, NAME, RunDirectory
from sdo_ray.tracking.provenance import flatten

FILE, CHANGES = "settings.json", "changes.json"
BASE = "base.json"
"""The file that says which base model the run reads."""


class RunSettings(Settings):
    """What the run is called and where it keeps its things."""

    name: str = Field(
        pattern=NAME,
        max_length=LONGEST_NAME,
        description="The run's name. The same name and settings again resume it, or say that it is complete.",
    )
    storage: str = Field(
        "runs",
        description="Directory, or URI that all nodes write such as `s3://bucket/path`, for checkpoints and results.",
    )
    seed: int = Field(0, ge=0, description="Fixes prompt order, noise, kept steps and the initial adapter.")
    wait_for_nodes: Annotated[float, MAY_CHANGE] = Field(
        0.0,
        ge=0,
        description="Seconds that a cluster that grows may take to have room for the run; it is asked to at once.",
    )


class LongRunSettings(RunSettings):
    """What the run is called and where it keeps its things, and which of its settings are changed on the way."""

    change: list[str] = Field(
        default_factory=list,
        description="Settings that are meant to be others than the run has, such as `training.learning_rate`, of those "
        "that may be so; from the next update on. `--change A.B=C` names a setting here and gives its value.",
    )


class JobSettings(Protocol):
    """The settings of a job that keeps a run's directory."""

    @property
    def run(self) -> RunSettings:
        """Name, storage and seed."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: str) -> Self:
        """Read them from JSON."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        ...


def has_begun(settings: JobSettings) -> bool:
    """Whether a run of this name is there; not, where its storage cannot be read."""
    try:
        return _known(RunDirectory(settings.run.storage, settings.run.name)) is not None
    except (OSError, SettingsError):
        return False  # said by `open_run`


def open_run(settings: JobSettings) -> RunDirectory:
    """The run's directory, which need not exist yet; nothing is written.

    Raises:
        SettingsError: the storage cannot be read, or a run of this name exists with other settings than those that may
            change, see `MAY_CHANGE`, or are meant to; every difference is listed.
    """
    run = RunDirectory(settings.run.storage, settings.run.name)
    try:
        known = _as_now(_known(run), settings)
    except OSError as error:
        cause = str(error).splitlines()[0]
        got = f"{settings.run.storage!r} cannot be read: {cause}"
        raise SettingsError(Problem("run.storage", got, fix="correct it, or the access to it")) from None
    if known is None:
        return run
    differences = _differences(known, settings)
    kind: Any = type(settings)
    of_both = (known, settings.to_dict())
    free, meant = ({name for values in of_both for name in changeable(kind, values, mark)} for mark in MARKS)
    free |= _on_purpose(settings, meant)
    problems = [
        Problem(key, f"the run {settings.run.name!r} has {before}, got {now}")
        for key, (before, now) in differences.items()
        if key not in free
    ]
    if problems:
        raise SettingsError(
            *problems,
            Problem(
                "run.name",
                f"{run.uri} was started with other settings, listed above",
                "where it runs, how long and how often may change, and others with --change, see docs/configuration.md",
                "use them to resume, or another name",
            ),
        )
    return run


MARKS = (MAY_CHANGE, ON_PURPOSE)


def _on_purpose(settings: JobSettings, meant: set[str]) -> set[str]:
    """The settings that are said to be changed on purpose.

    Raises:
        SettingsError: one cannot be.
    """
    named = set(getattr(settings.run, "change", ()))
    if unknown := sorted(named - meant):
        got = f"got {', '.join(unknown)}, on which depends what the run has made"
        raise SettingsError(Problem("run.change", got, f"legal: {', '.join(sorted(meant))}", "begin another run"))
    return named


def _known(run: RunDirectory) -> dict[str, Any] | None:
    known: dict[str, Any] | None = run.read_json(FILE, lost="what the run is bound to; give it the same settings again")
    return known


def _differences(known: dict[str, Any], settings: JobSettings) -> dict[str, tuple[str, str]]:
    """Setting -> what the run has, and what is given."""
    given = settings.to_dict()
    _start_here(known, settings)
    _start_here(given, settings)
    for values in (known, given):
        values.get("run", {}).pop("change", None)
    before, now = flatten(known), flatten(given)
    return {
        key: (before.get(key, "nothing"), now.get(key, "nothing"))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }


def _as_now(known: dict[str, Any] | None, settings: JobSettings) -> dict[str, Any] | None:
    """Settings that a version before this one kept, by their names now, and with defaults for those that are new."""
    try:
        return known and type(settings).model_validate_json(json.dumps(known)).to_dict()
    except ValidationError:
        return known  # the differences will say why


def _start_here(values: dict[str, Any], settings: JobSettings) -> None:
    """Make relative paths among plain values absolute; those that are kept start at the working directory."""
    kind: Any = type(settings)
    for found in relative_paths(kind, values):
        found.start_at(Path.cwd())


def model_of(model: ModelSettings, run: RunDirectory) -> ModelSettings:
    """The model as the run reads it: one of the hub at the commit that it was when the run was started.

    Raises:
        SettingsError: see `sdo_ray.models.files.pinned`.
    """
    return model.model_copy(update={"base": reference_of(model.reference, run), "revision": None, "variant": None})


def reference_of(base: str, run: RunDirectory) -> str:
    """A base model's reference as the run reads it, see `model_of`."""
    with under("model"):
        return (run.read_json(BASE) or {}).get("reference") or pinned(base)


def keep_reference(run: RunDirectory, reference: str) -> None:
    """Bind the run to what `reference_of` returned."""
    run.write_json(BASE, {"reference": reference})


def keep_settings(run: RunDirectory, settings: JobSettings) -> dict[str, str]:
    """Bind the run's name to these settings; say, keep and return which are others than before, and what they were.

    Called once nothing can be refused any more: a run that was refused for a cluster too small, say, can so be started
    under its name with the settings mended.
    """
    changes = {}
    if (known := _as_now(_known(run), settings)) is not None:
        changes = {key: f"{before} -> {now}" for key, (before, now) in _differences(known, settings).items()}
    for key, change in changes.items():
        before, _, now = change.partition(" -> ")
        print(f"{run.name}: {key} was {before} and is {now} from here on", flush=True)
    if changes:
        past = run.read_json(CHANGES, lost="which settings were changed before, and when") or []
        run.write_json(CHANGES, [*past, {"at": datetime.now(UTC).isoformat(timespec="seconds"), **changes}])
    run.write_json(FILE, settings.to_dict())
    return changes

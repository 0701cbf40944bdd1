"""A run and its settings belong together."""

from __future__ import annotations

from sdo_ray.config.align import AlignSettings
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.provenance import flatten

FILE = "settings.json"


def open_run(settings: AlignSettings) -> RunDirectory:
    """The run's directory, made if it is new.

    Raises:
        SettingsError: a run of this name exists with other settings; every difference is listed.
    """
    run = RunDirectory(settings.run.storage, settings.run.name)
    known, given = run.read_json(FILE), settings.to_dict()
    if known is None:
        run.write_json(FILE, given)
    elif known != given:
        before, now = flatten(known), flatten(given)
        problems = [
            f"{key}: the run {settings.run.name!r} has {before.get(key, 'nothing')}, got {now.get(key, 'nothing')}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        raise SettingsError(
            *problems,
            f"run.name: {run.uri} was started with other settings, listed above; use them to resume, or another name.",
        )
    return run

"""What every job with a run's directory does before and around its work: open, check, track."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from sdo_ray.config.run import JobSettings, keep_settings
from sdo_ray.driver.lock import driver_lock
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.run import TrackedRun, check_tracked
from sdo_ray.tracking.server import check_server, tracking_uri
from sdo_ray.tracking.settings import ExperimentSettings

T = TypeVar("T")


class TrackedSettings(JobSettings, Protocol):
    """The settings of a job whose run MLflow tracks too."""

    @property
    def tracking(self) -> ExperimentSettings:
        """The experiment."""
        ...


class FoundLate(RuntimeError):
    """Bad input that only the work showed: it had begun, and what is done is kept."""


def known_outcome(run: RunDirectory, read: Callable[[RunDirectory], T | None]) -> T | None:
    """What a complete run came to, saying so; None of one that is not."""
    if (outcome := read(run)) is not None:
        print(f"{run.name} is complete\n")
    return outcome


def check_run(settings: TrackedSettings, run: RunDirectory, needed: int = 0) -> str:
    """See that the storage has room, and MLflow answers and can go on; returns MLflow's address.

    Args:
        settings: of the job.
        run: its directory.
        needed: bytes.

    Raises:
        SettingsError: one of them does not.
    """
    run.check_space(needed)
    check_server(uri := tracking_uri(run))
    check_tracked(uri, settings.tracking.experiment, run)
    return uri


@contextmanager
def tracked_run(settings: TrackedSettings, run: RunDirectory, uri: str) -> Iterator[TrackedRun]:
    """Hold the run, bind its name to its settings, as nothing can be refused any more, and keep an MLflow run beside.

    Raises:
        AlreadyRunning: another driver works on it.
    """
    with driver_lock(run):
        changes = keep_settings(run, settings)
        with TrackedRun(uri, settings.tracking.experiment, run, run.name, settings.to_dict()) as tracked:
            tracked.set_tags({f"changed.{setting}": change for setting, change in changes.items()})
            try:
                yield tracked
            except SettingsError as error:
                raise FoundLate(" ".join(str(error).split())) from error

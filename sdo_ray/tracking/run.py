"""One MLflow run beside one run of a job, and continued with it."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.provenance import flatten
from sdo_ray.tracking.refusals import Refusals
from sdo_ray.tracking.server import impatient, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "mlflow.json"
"""The file of a run's directory that says which MLflow run is beside it."""


def check_tracked(uri: str, experiment: str, directory: RunDirectory) -> None:
    """Refuse an experiment that this user may not write to, and one, or a run to be continued, that was deleted.

    Args:
        uri: of a server that answers.
        experiment: its experiment.
        directory: the run's.

    Raises:
        SettingsError: with how to restore it.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is not None and found.lifecycle_stage == "deleted":
        restore = f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        got = f"{experiment!r} was deleted in MLflow"
        raise SettingsError(Problem("tracking.experiment", got, fix=f"restore it, {restore}, or name another"))
    _check_rights(client, experiment, directory)
    known = _known(directory)
    if known is None or known["tracking_uri"] != without_password(uri):
        return
    run_id, anew = known["run_id"], f"remove {directory.place(FILE)} to begin another, which gets all updates"
    try:
        stage = client.get_run(run_id).info.lifecycle_stage
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise SettingsError(Problem("run.name", f"its MLflow run {run_id} is gone", fix=anew)) from None
    if stage == "deleted":
        restore = f"restore it, `mlflow runs restore --run-id {run_id}`, or {anew}"
        raise SettingsError(Problem("run.name", f"its MLflow run {run_id} was deleted in MLflow", fix=restore))


class TrackedRun:
    """Numbers, images, files and tags of one run, whatever job it is of.

    A metric, image or tag that MLflow refuses for good is said, counted and passed over. What a person or time can
    mend, an outage or a deleted run, is raised.

    Args:
        uri: the MLflow server.
        experiment: its experiment.
        directory: the run's directory, which remembers the MLflow run's id.
        name: the run's name.
        settings: all settings, logged as parameters.
    """

    def __init__(self, uri: str, experiment: str, directory: RunDirectory, name: str, settings: dict[str, Any]) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self.uri, self._refusals = uri, Refusals(self._is_deleted)
        known = _known(directory)
        if known is None or known["tracking_uri"] != without_password(uri):
            self.run_id = self._start(experiment, directory, name, settings)
            directory.write_json(FILE, {"tracking_uri": without_password(uri), "run_id": self.run_id})
        else:
            self.run_id = known["run_id"]
            self.client.update_run(self.run_id, status="RUNNING")

    def _start(self, experiment: str, directory: RunDirectory, name: str, settings: dict[str, Any]) -> str:
        from mlflow.entities import Param

        experiment_id = _experiment_id(self.client, experiment, directory)
        run_id: str = self.client.create_run(experiment_id, run_name=name).info.run_id
        parameters = [Param(_legal(key), value[:6000]) for key, value in flatten(settings).items()]
        for first in range(0, len(parameters), 100):  # MLflow's limit for one request
            self.client.log_batch(run_id, params=parameters[first : first + 100])
        return run_id

    def log_step(self, step: int, metrics: Mapping[str, float], images: Mapping[str, bytes] = {}) -> None:
        """Log the numbers and images of one step, which MLflow has whole or not at all: see `logged`.

        Args:
            step: from 1.
            metrics: name -> value.
            images: name -> PNG.
        """
        for key, image in images.items():
            if self._has_image(key, step):  # of an attempt whose numbers did not get through
                self.client.set_tag(self.run_id, "mlflow.loggedImages", True)
            else:
                with self._refusals.passed_over(f"image {key}"):
                    self.client.log_image(self.run_id, Image.open(io.BytesIO(image)), key=key, step=step)
        self._log_metrics(dict(metrics), step)

    def _has_image(self, key: str, step: int) -> bool:
        """Whether MLflow has all files of an image, by the names that it gives them."""
        begins = f"images/{key}+step+{step}+"
        found = self.client.list_artifacts(self.run_id, "images")
        return any(file.path.startswith(begins) and file.path.endswith("+compressed.webp") for file in found)

    def logged(self, metric: str) -> frozenset[int]:
        """The steps of which MLflow has a metric."""
        return frozenset(found.step for found in self.client.get_metric_history(self.run_id, metric))

    def log_results(self, metrics: dict[str, float], files: Iterable[Path]) -> None:
        """Log what a job found, and its files."""
        self._log_metrics(metrics, 0)
        for file in files:
            self.client.log_artifact(self.run_id, str(file), artifact_path="outcome")

    def log_curves(self, curves: Sequence[Mapping[str, float]], tags: Mapping[str, str]) -> None:
        """Log named numbers after 0, 1, .. steps, unless MLflow has them already, and tags of the run."""
        name = next(iter(curves[0]))
        done = self.logged(_legal(name))
        for step, numbers in enumerate(curves):
            if step not in done:
                self._log_metrics(dict(numbers), step)
        self.set_tags(tags)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run."""
        for key, value in tags.items():
            with self._refusals.passed_over(f"tag {key}"):
                self.client.set_tag(self.run_id, _legal(key), value)

    def adopt(self, directory: RunDirectory) -> None:
        """Show the MLflow run of another run's directory, if it has one, below this one."""
        if (known := _known(directory)) is not None:
            self.client.set_tag(known["run_id"], "mlflow.parentRunId", self.run_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the MLflow run as FINISHED or, to be continued when the run is resumed, as FAILED."""
        if count := self._refusals.count:
            print(f"MLflow refused {count} metrics, images or tags for good; each is named above, once", flush=True)
        if kind is None:
            self.client.set_terminated(self.run_id, "FINISHED")
            return
        with suppress(Exception), impatient():  # the error that ends the run is what is to be seen
            self.client.set_terminated(self.run_id, "FAILED")

    def _is_deleted(self) -> bool:
        return bool(self.client.get_run(self.run_id).info.lifecycle_stage == "deleted")

    def _log_metrics(self, metrics: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        logged = [Metric(_legal(key), value, now, step) for key, value in metrics.items()]
        try:
            self.client.log_batch(self.run_id, metrics=logged)
        except Exception as error:
            if not self._refusals.is_final(error):
                raise
            for metric in logged:  # a batch is taken whole or not at all
                with self._refusals.passed_over(f"metric {metric.key}"):
                    self.client.log_batch(self.run_id, metrics=[metric])


def _experiment_id(client: MlflowClient, experiment: str, directory: RunDirectory) -> str:
    """Of the experiment, which is made if need be."""
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        return str(found.experiment_id)
    # Without a server, artifacts would land in the directory the command was started from.
    place = f"file://{directory.storage}/mlartifacts" if client.tracking_uri.startswith("sqlite:") else None
    return str(client.create_experiment(experiment, artifact_location=place))


def _check_rights(client: MlflowClient, experiment: str, directory: RunDirectory) -> None:
    """Write a tag, which takes the same right as a run: after hours on GPUs is too late to find that there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.set_experiment_tag(_experiment_id(client, experiment, directory), "sdo.used", "true")
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED" and "ermission denied" not in str(error):
            raise
        got = f"this user of MLflow may not write to {experiment!r}"
        raise SettingsError(
            Problem("tracking.experiment", got, fix="ask who made it for EDIT, or name one of your own")
        ) from None


def _known(directory: RunDirectory) -> dict[str, str] | None:
    """The MLflow run that goes on with a run."""
    lost = "which MLflow run goes on with this one; another one begins, and gets all updates"
    known: dict[str, str] | None = directory.read_json(FILE, lost)
    return known


def _legal(name: str) -> str:
    """A name that MLflow takes."""
    # What looks like a path has to be the shortest one.
    return re.sub(r"/+", "/", re.sub(r"[^/\w.\- :]", "/", name)).strip("/")

"""Which MLflow server a run talks to, and whether it answers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import RunDirectory

PATIENCE = 25.0
"""Seconds that a request takes at most inside `impatient`: two tries of 10 seconds, and the pause between them."""


def tracking_uri(run: RunDirectory) -> str:
    """MLFLOW_TRACKING_URI, or a database file beside the runs.

    Raises:
        SettingsError: neither is possible.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if not run.is_local:
        raise SettingsError(
            Problem(
                "MLFLOW_TRACKING_URI",
                f"not set, and the run's storage {run.storage!r} is no local directory to keep MLflow's database in",
                fix="set it to your MLflow server",
            )
        )
    return f"sqlite:///{run.storage}/mlflow.db"


def registry_uri() -> str:
    """MLFLOW_TRACKING_URI or, for what reads a model of no run in particular, the database file of the runs here.

    Raises:
        SettingsError: there is neither.
    """
    here = Path("runs", "mlflow.db").resolve()
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if not here.is_file():
        got = f"not set, and there is no {here}"
        raise SettingsError(Problem("MLFLOW_TRACKING_URI", got, fix="set it to your MLflow server"))
    return f"sqlite:///{here}"


def check_server(uri: str) -> None:
    """Refuse a server that does not answer, quickly.

    Raises:
        SettingsError: with the address, credentials removed, and the cause.
    """
    from mlflow import MlflowClient

    with impatient():
        try:
            _try_database(uri)
            with _alone(uri):
                MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
        except Exception as error:  # besides MLflow's own, whatever a database driver raises, or that it is not there
            cause = " ".join(_redact(str(error), uri).split())[:300]
            raise SettingsError(
                Problem(
                    "MLFLOW_TRACKING_URI",
                    f"MLflow at {without_password(uri)} does not answer: {cause}",
                    fix="start the server, correct the address or credentials, or unset it to use a database file",
                )
            ) from None


def how_to_look(uri: str) -> str:
    """Where a person sees the runs: the server's address, or the command that serves a database; no credentials."""
    shown = without_password(uri)
    return shown if shown.startswith("http") else f"mlflow ui --backend-store-uri {shown}"


def without_password(uri: str) -> str:
    """The URI with user and password removed."""
    credentials, at, _ = urlsplit(uri).netloc.rpartition("@")
    return uri.replace(f"{credentials}@", "", 1) if at else uri


def _try_database(uri: str) -> None:
    """One connection, where the URI names a database: MLflow itself would try again for minutes."""
    import sqlalchemy
    from mlflow.store.db.db_types import DATABASE_ENGINES

    if urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES:
        engine = sqlalchemy.create_engine(uri)
        engine.connect().close()
        engine.dispose()


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """One process after the other, where the URI names a database file: whoever comes first makes or migrates it.

    Two that migrate one at once fail.
    """
    file = urlsplit(uri).path[1:] if uri.startswith("sqlite:///") else ""
    if not file:
        yield
        return
    with open(f"{file}.lock", "w") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _redact(text: str, uri: str) -> str:
    """The text without the URI's credentials; a driver may have quoted the password alone."""
    secrets = urlsplit(uri)
    text = text.replace(f"{secrets.netloc.rpartition('@')[0]}@", "") if "@" in secrets.netloc else text
    return text.replace(secrets.password, "***") if secrets.password else text


@contextmanager
def impatient() -> Iterator[None]:
    """Inside the block, a request to a server ends within `PATIENCE`, where MLflow would try for many minutes."""
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

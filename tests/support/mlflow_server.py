"""A real MLflow server over HTTP, on this machine, for as long as a test needs it."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import answers, free_port, wait_until

ADMIN = "admin"
"""The first user of a server with authentication."""


@dataclass(frozen=True)
class MlflowServer:
    """A server that answers."""

    uri: str
    """`http://127.0.0.1:PORT`, without credentials."""
    environment: dict[str, str]
    """What a client needs: MLFLOW_TRACKING_URI and, with authentication, the administrator's name and password."""
    log: Path
    """What the server printed."""


@contextmanager
def mlflow_server(
    directory: Path,
    *,
    authenticated: bool = False,
    backend: str | None = None,
    artifacts: str | None = None,
    port: int | None = None,
) -> Iterator[MlflowServer]:
    """Serve until the block ends.

    Args:
        directory: where it keeps its things.
        authenticated: whether it asks for user and password (MLflow's basic-auth app).
        backend: database URI; a SQLite file if not given.
        artifacts: where it stores artifacts, served by it over HTTP; a directory if not given.
        port: where it listens; a free one if not given.
    """
    environment, options = {}, list[str]()
    password = secrets.token_urlsafe(16)
    if authenticated:
        options = ["--app-name", "basic-auth"]
        config = directory / "basic_auth.ini"
        config.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{directory}/users.db\n"
            f"admin_username = {ADMIN}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        environment = {
            "MLFLOW_AUTH_CONFIG_PATH": str(config),
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(16),
        }
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", backend or f"sqlite:///{directory}/mlflow.db"]
    command += ["--artifacts-destination", artifacts or str(directory / "artifacts"), *options]
    # The processes that would run jobs of MLflow's own are not wanted here, and take long to start.
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with serving(command, port, directory / "server.log", environment) as uri:
        client = {"MLFLOW_TRACKING_URI": uri}
        if authenticated:
            client |= {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": password}
        yield MlflowServer(uri, client, directory / "server.log")


@contextmanager
def serving(command: Sequence[str], port: int, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a server's command until the block ends; yields its address once it listens on `port`."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=inherited | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, f"the server ended:\n{log.read_text()[-3000:]}"
            return answers(port)

        wait_until(ready, f"{command[0]} to listen on port {port}", seconds=300)
        yield f"http://127.0.0.1:{port}"
    finally:
        # Its workers are in its process group, which is not ours.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

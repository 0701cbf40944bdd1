"""A real PostgreSQL server on this machine, where its programs are installed."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.mlflow_server import serving
from tests.support.ports import free_port, wait_until

USER = "mlflow"


def skip_without_postgres() -> None:
    """Skip the test, with the reason, if the programs are not there or may not be run."""
    if _program("postgres") is None or _program("initdb") is None:
        pytest.skip("there is no postgres and initdb (Debian: apt install postgresql)")
    if os.getuid() == 0 and (shutil.which("runuser") is None or subprocess.run(["id", "postgres"]).returncode):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres to run it as")


def _program(name: str) -> str | None:
    """Where a program of PostgreSQL is: on the PATH, or where Debian keeps it."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


class Postgres:
    """A server that can go away and come back as it was."""

    def __init__(self, uri: str, command: list[str], port: int, data: Path) -> None:
        self.uri = uri
        """`postgresql+psycopg2://USER:PASSWORD@127.0.0.1:PORT/postgres`"""
        self._start = lambda: serving(command, port, data.parent / "server.log", {})
        self._process = data / "postmaster.pid"
        self._running = ExitStack()

    def start(self) -> None:
        """Serve."""
        self._running.enter_context(self._start())

    def stop(self) -> None:
        """Answer nobody; what was committed stays."""
        if self._process.exists():
            # Fast. What SIGTERM asks for waits for clients, whose pools keep their connections.
            os.kill(int(self._process.read_text().split()[0]), signal.SIGINT)
            wait_until(lambda: not self._process.exists(), "PostgreSQL to end", seconds=60)
        self._running.close()


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Serve until the block ends."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    directory = Path(tempfile.mkdtemp(prefix="sdo-postgres-"))
    try:
        if prefix:
            shutil.chown(directory, "postgres")
        password = secrets.token_urlsafe(12)
        secret = directory / "password"
        secret.write_text(password)
        secret.chmod(0o644)
        data = directory / "data"
        create = [_program("initdb"), "-D", str(data), "-U", USER]
        create += ["--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        subprocess.run([*prefix, *create], check=True, capture_output=True, cwd="/")  # type: ignore[list-item]
        port, program = free_port(), _program("postgres")
        assert program is not None
        command = [*prefix, program, "-F", "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(directory)]
        uri = f"postgresql+psycopg2://{USER}:{password}@127.0.0.1:{port}/postgres"
        server = Postgres(uri, command, port, data)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """Serve until the block ends; yields the URI, see `Postgres`."""
    with postgres_server() as server:
        yield server.uri

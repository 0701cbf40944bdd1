"""A real head node, started with `ray start` and token authentication, for as long as a test needs it."""

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import answers, free_port, wait_until

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Cluster:
    """A head node that takes jobs."""

    address: str
    """Of its job server, `http://127.0.0.1:PORT`."""
    gcs: str
    """What RAY_ADDRESS is on its nodes."""
    metrics: str
    """URL of its metrics, for Prometheus."""
    token: str
    """What a client must know."""
    environment: dict[str, str]
    """This process's environment, with the path of the token's file."""


@contextmanager
def ray_cluster(directory: Path, num_cpus: int = 8) -> Iterator[Cluster]:
    """Start a cluster of one node, wait until it takes jobs, and end it with the block.

    Args:
        directory: where the token is kept.
        num_cpus: logical CPUs.
    """
    token = secrets.token_hex(32)
    (directory / "token").write_text(token)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(directory / "token")}
    # As in infra/kuberay.
    environment |= {"RAY_worker_maximum_startup_concurrency": "16"}
    gcs, dashboard, metrics = free_port(), free_port(), free_port()
    # All ports are our own: an agent that finds its port taken by another cluster of this machine never takes a job.
    start = [RAY, "start", "--head", f"--port={gcs}", f"--dashboard-port={dashboard}"]
    start += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={metrics}"]
    # And so is its directory: a job finds its cluster by a file in it, which the newest cluster there has written.
    temporary = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    start += [f"--num-cpus={num_cpus}", f"--temp-dir={temporary.name}", "--disable-usage-stats", "--block"]
    # With --block, ending this process ends its cluster; `ray stop` would end every cluster on the machine.
    head = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{dashboard}"

    def takes_jobs() -> bool:
        assert head.poll() is None, "ray start ended"
        probe = [RAY, "job", "submit", f"--address={address}", "--submission-id=probe", "--no-wait", "--", "true"]
        done = subprocess.run(probe, env=environment, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0 or "No available agent" in said, said
        return done.returncode == 0

    try:
        wait_until(lambda: answers(dashboard), "the job server to listen")
        wait_until(takes_jobs, "an agent that takes jobs")
        yield Cluster(address, f"127.0.0.1:{gcs}", f"http://127.0.0.1:{metrics}/metrics", token, environment)
    finally:
        head.terminate()
        head.wait(timeout=60)
        temporary.cleanup()

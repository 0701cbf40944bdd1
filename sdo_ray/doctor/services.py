"""Ray and MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from sdo_ray.doctor.finding import Finding, ok, problem, warning
from sdo_ray.settings import SettingsError
from sdo_ray.tracking.server import check_server, without_password

TOKEN_FILE = Path("~/.ray/auth_token")
"""Where Ray keeps its token if nothing names another place."""

_RAY_TRIAL = """
import logging, ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
print(ray.get(ray.remote(lambda: ray.__version__).remote()))
ray.shutdown()
"""


def ray_starts(seconds: float = 120) -> Finding:
    """Ray."""
    began = time.monotonic()
    try:
        done = subprocess.run([sys.executable, "-c", _RAY_TRIAL], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return problem(
            "Ray",
            f"a cluster on this machine does not answer after {seconds:.0f} s",
            "see /tmp/ray/session_latest/logs",
        )
    if done.returncode:
        cause = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        return problem(
            "Ray", f"does not start on this machine: {' '.join(cause)[:300]}", "see /tmp/ray/session_latest/logs"
        )
    return ok("Ray", f"{done.stdout.split()[-1]} started here and ran a task in {time.monotonic() - began:.0f} s")


def ray_cluster() -> Finding:
    """Ray cluster."""
    address, mode = os.environ.get("RAY_ADDRESS"), os.environ.get("RAY_AUTH_MODE")
    token = _token_place()
    where = f"RAY_ADDRESS is {without_password(address)}" if address else "RAY_ADDRESS is not set: runs start their own"
    says = f"{where}; RAY_AUTH_MODE is {mode or 'not set'}; token {f'in {token}' if token else 'not found'}"
    if mode == "token" and token is None:
        return problem(
            "Ray cluster",
            says,
            f"copy the head node's {TOKEN_FILE} here, or set RAY_AUTH_TOKEN_PATH to where it is; "
            "without a cluster, unset RAY_AUTH_MODE",
        )
    if address and mode != "token":
        mend = f"export RAY_AUTH_MODE=token on all nodes, with the head node's {TOKEN_FILE}; docs/operations.md"
        return warning("Ray cluster", f"{says}: whoever reaches such a cluster can run code on it", mend)
    return ok("Ray cluster", says)


def mlflow_server() -> Finding:
    """MLflow."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return ok("MLflow", "MLFLOW_TRACKING_URI is not set: a database file beside the runs is used")
    try:
        check_server(uri)
    except SettingsError as error:
        [found] = error.problems
        return problem("MLflow", f"{found.setting}: {found.got}", found.fix)
    return ok("MLflow", f"answers at {without_password(uri)}")


def _token_place() -> str | None:
    """Where a token is; the token itself is never read."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    for place in (os.environ.get("RAY_AUTH_TOKEN_PATH"), str(TOKEN_FILE)):
        if place and Path(place).expanduser().is_file():
            return place
    return None

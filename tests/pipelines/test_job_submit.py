"""`ray job submit` to a real local cluster with token authentication on."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runs import REPOSITORY, tiny_settings

RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A head node started with `ray start`; yields the job server's address and the environment with the token."""
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment.pop("RAY_ADDRESS", None)
    dashboard = free_port()
    start = [RAY, "start", "--head", f"--port={free_port()}", f"--dashboard-port={dashboard}", "--num-cpus=8"]
    start += ["--disable-usage-stats", "--include-dashboard=true", "--block"]
    # With --block, ending this process ends its cluster; `ray stop` would end every cluster on the machine.
    head = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not answers(dashboard):
        assert head.poll() is None, "ray start ended"
        assert time.monotonic() < deadline, "the cluster's job server does not answer"
        time.sleep(0.5)
    yield f"http://127.0.0.1:{dashboard}", environment
    head.terminate()
    head.wait(timeout=60)


def test_a_run_is_submitted_as_a_job(cluster: tuple[str, dict[str, str]], tiny_base: Path, tmp_path: Path) -> None:
    address, environment = cluster
    work = tmp_path / "work"
    work.mkdir()
    # A reward of the user's own travels in the job's working directory.
    shutil.copy(REPOSITORY / "tests/support/ink.py", work / "my_rewards.py")
    tiny_settings(
        work,
        tiny_base,
        run={"storage": str(tmp_path / "runs")},
        rewards={"terms": [{"name": "my_rewards:Ink", "weight": 1.0}]},
        evaluation={"evaluators": [{"name": "my_rewards:Smoothness"}]},
        training={"updates": 2},
        trainers={"count": 1},
    )
    submit = [RAY, "job", "submit", f"--address={address}", f"--working-dir={work}", "--"]
    submit += [sys.executable, "-m", "pipelines.align", "settings.yaml"]

    stranger = {key: value for key, value in environment.items() if not key.startswith("RAY_AUTH")}
    stranger["HOME"] = str(tmp_path)
    refused = subprocess.run(submit, env=stranger, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode != 0
    assert "auth" in (refused.stdout + refused.stderr).lower()

    done = subprocess.run(submit, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "update 2/2" in done.stdout
    assert "succeeded" in done.stdout
    assert (tmp_path / "runs/tiny/adapter/pytorch_lora_weights.safetensors").is_file()
    token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    assert token not in done.stdout + done.stderr

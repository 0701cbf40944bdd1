"""`ray job submit` to a real local cluster with token authentication on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ray_cluster import RAY, ray_cluster
from tests.support.runs import REPOSITORY, tiny_settings


@pytest.mark.slow
def test_a_run_is_submitted_as_a_job(tiny_base: Path, tmp_path: Path) -> None:
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
    with ray_cluster(tmp_path) as cluster:
        submit = [RAY, "job", "submit", f"--address={cluster.address}", f"--working-dir={work}", "--"]
        submit += [sys.executable, "-m", "pipelines.align", "settings.yaml"]

        stranger = {key: value for key, value in cluster.environment.items() if not key.startswith("RAY_AUTH")}
        stranger["HOME"] = str(tmp_path)
        refused = subprocess.run(submit, env=stranger, capture_output=True, text=True, timeout=120, check=False)
        assert refused.returncode != 0
        assert "auth" in (refused.stdout + refused.stderr).lower()

        done = subprocess.run(submit, env=cluster.environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "update 2/2" in done.stdout
    assert "succeeded" in done.stdout
    assert (tmp_path / "runs/tiny/adapter/pytorch_lora_weights.safetensors").is_file()
    assert cluster.token not in done.stdout + done.stderr

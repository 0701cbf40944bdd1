"""The drill of docs/cycle.md: cycles of the embedded model, submitted to a cluster, against MLflow with users.

A first candidate becomes champion, one that was trained to forget the prompts is refused, a better one takes over, and
a roll-back restores the first. `pytest -s -m slow tests/pipelines/test_drill.py` prints what the commands say.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from tests.support.mlflow_server import mlflow_server
from tests.support.ray_cluster import ray_cluster
from tests.support.runs import REPOSITORY

MODEL = "emoji-glossy"
REFUSED = 3

GOOD = "{training.updates: 16}"
HACKED = "{training.updates: 16, training.learning_rate: 0.004, rewards.terms: [{name: preference, weight: 1.0}]}"
BETTER = "{training.updates: 40}"


@pytest.mark.slow
def test_refusal_promotion_and_roll_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = tmp_path / "configs"  # what travels with a job
    configs.mkdir()
    for name in ("cycle_emoji.yaml", "emoji.yaml", "evaluate_emoji.yaml", "promote_emoji.yaml", "prompts"):
        source = REPOSITORY / "pipelines/configs" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, configs / name)
    (tmp_path / "mlflow").mkdir()
    with mlflow_server(tmp_path / "mlflow", authenticated=True) as server, ray_cluster(tmp_path) as cluster:
        environment = cluster.environment | server.environment
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.setenv(name, server.environment[name])
        given = ["--address", cluster.address, "--follow", "--python", sys.executable]
        given += [f"--set=run.storage={tmp_path}/runs"]
        given += ["--set", "evaluate.set={reference: null, prompts.num_prompts: 48}"]
        given += ["--env", f"MLFLOW_TRACKING_URI={server.uri}"]
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            (tmp_path / name).write_text(server.environment[name])
            given += ["--env", f"{name}_FILE={tmp_path / name}"]

        def sdo(*arguments: str) -> int:
            print("$ sdo", *arguments, flush=True)
            command = [str(Path(sys.executable).with_name("sdo")), *arguments]
            done = subprocess.run(command, cwd=configs, env=environment, check=False, timeout=3600)
            print("exit code", done.returncode, flush=True)
            return done.returncode

        def cycle(name: str, align: str) -> int:
            named = ["--set", f"run.name={name}", "--set", f"align.set={align}"]
            return sdo("submit", "cycle", "cycle_emoji.yaml", *named, *given)

        client = mlflow.MlflowClient(server.uri)

        def alias(name: str) -> str:
            return str(client.get_model_version_by_alias(MODEL, name).version)

        assert cycle("first", GOOD) == 0
        assert alias("champion") == "1"
        assert cycle("hacked", HACKED) == REFUSED
        assert alias("champion") == "1"
        assert "heldout_alignment" in str(client.get_model_version(MODEL, "2").tags)
        assert cycle("better", BETTER) == 0
        assert (alias("champion"), alias("previous")) == ("3", "1")
        evaluation = ["--set=evaluation.name=better-evaluate-1", f"--set=evaluation.storage={tmp_path}/runs"]
        assert sdo("promote", "promote_emoji.yaml", *evaluation, "--rollback", "3", "--why", "a drill") == 0
        assert alias("champion") == "1"
        images = os.environ.get("SDO_DRILL_IMAGES", str(tmp_path))
        for version in (1, 2, 3):
            prompts = [part for prompt in ("red apple", "penguin", "house") for part in ("--prompt", prompt)]
            out = f"{images}/version_{version}.png"
            assert sdo("sample", *prompts, "--model", f"models:/{MODEL}/{version}", "--out", out) == 0

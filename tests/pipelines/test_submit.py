"""`sdo submit` to a real local cluster with token authentication, and what it refuses without one."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.commands import COMMANDS
from pipelines.submit import main
from sdo_ray.config.cycle import CycleSettings
from sdo_ray.config.job_files import STAGES, named_files, settings_files
from sdo_ray.config.loading import read_settings
from tests.support.cycles import tiny_cycle
from tests.support.ports import wait_until
from tests.support.ray_cluster import Cluster, ray_cluster
from tests.support.runs import REPOSITORY, tiny_settings


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ray_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def settings(tiny_base: Path, tmp_path: Path) -> Path:
    """A run with the user's own rewards; a directory of its own is what travels."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(REPOSITORY / "tests/support/ink.py", work / "my_rewards.py")
    return tiny_settings(
        work,
        tiny_base,
        run={"storage": str(tmp_path / "runs"), "name": tmp_path.name},
        rewards={"terms": [{"name": "my_rewards:Ink", "weight": 1.0}]},
        evaluation={"evaluators": [{"name": "my_rewards:Smoothness"}]},
        training={"updates": 2, "checkpoint_every": 1},
        trainers={"count": 1},
    )


def sdo_submit(cluster: Cluster, settings: Path, *more: str, code: int = 0) -> tuple[dict[str, Any], str]:
    """Run the command; returns its last line, which is JSON, and all output."""
    command = [sys.executable, "-m", "pipelines.submit", "align", str(settings), "--python", sys.executable]
    command += ["--address", cluster.address, *more]
    done = subprocess.run(
        command, env=cluster.environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=500, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert cluster.token not in said
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}, said


@pytest.mark.slow
def test_the_same_again_finds_the_job(cluster: Cluster, settings: Path, tmp_path: Path) -> None:
    line, said = sdo_submit(cluster, settings, "--follow", "--env", "MLFLOW_TRACKING_PASSWORD_FILE=", "--env", "A=b")
    assert (line["action"], line["status"], line["attempt"], line["exit_code"]) == ("submitted", "SUCCEEDED", 1, 0)
    assert "environment: MLFLOW_TRACKING_PASSWORD_FILE, A" in said
    assert "update 2/2" in said
    assert "worker processes have been started" not in said  # at once, which the cluster was told to expect
    run = tmp_path / "runs" / tmp_path.name
    assert (run / "adapter/pytorch_lora_weights.safetensors").is_file()

    again, said = sdo_submit(cluster, settings, "--follow")
    assert again == line | {"action": "complete"}
    assert "it was submitted with other files, variables or --python" in said
    assert "update 2/2" in said  # its output, once more

    status, _ = sdo_submit(cluster, settings, "--status")
    assert status == line | {"action": "status"}


@pytest.mark.slow
def test_a_job_that_was_stopped_goes_on_in_another_attempt(cluster: Cluster, settings: Path, tmp_path: Path) -> None:
    slow = ("--set", "training.updates=40", "--set", "rewards.terms.0.options={seconds: 1.0}")
    started, _ = sdo_submit(cluster, settings, *slow)
    assert (started["action"], started["attempt"], started["exit_code"]) == ("submitted", 1, 0)
    attached, _ = sdo_submit(cluster, settings, *slow)
    assert (attached["action"], attached["submission_id"]) == ("attached", started["submission_id"])

    _, said = sdo_submit(cluster, settings, "--set", "training.updates=3", code=2)
    assert f"{started['submission_id']} is running, a job of the run '{tmp_path.name}' with other settings" in said

    train = tmp_path / "runs" / tmp_path.name / "train"
    wait_until(lambda: any(train.glob("checkpoint_*/progress.json")), "the first checkpoint", 240)
    running, _ = sdo_submit(cluster, settings, *slow, "--status", code=75)
    assert running["status"] == "RUNNING"
    stopped, _ = sdo_submit(cluster, settings, *slow, "--stop", code=130)
    assert (stopped["action"], stopped["status"]) == ("stop", "STOPPED")

    resumed, _ = sdo_submit(cluster, settings, *slow)
    assert (resumed["action"], resumed["attempt"]) == ("resumed", 2)
    assert resumed["submission_id"] == f"{started['submission_id']}-attempt-2"
    sdo_submit(cluster, settings, *slow, "--stop", code=130)


@pytest.mark.slow
def test_a_job_that_fails_gives_its_exit_code_and_is_tried_again_by_the_same_command(
    cluster: Cluster, settings: Path
) -> None:
    too_large = ("--set", "samplers.num_cpus=1000.0", "--follow")
    first, said = sdo_submit(cluster, settings, *too_large, code=2)
    assert (first["action"], first["status"], first["attempt"]) == ("submitted", "FAILED", 1)
    assert "cluster: the run needs" in said
    again, said = sdo_submit(cluster, settings, *too_large, code=2)
    assert (again["action"], again["status"], again["attempt"]) == ("resumed", "FAILED", 2)
    assert again["submission_id"] == f"{first['submission_id']}-attempt-2"
    assert "it was submitted with other files" not in said
    assert "cluster: the run needs" in said


def test_without_the_token(cluster: Cluster, settings: Path, tmp_path: Path) -> None:
    other = {key: value for key, value in cluster.environment.items() if not key.startswith("RAY_AUTH")}
    stranger = replace(cluster, environment=other | {"HOME": str(tmp_path)})
    _, said = sdo_submit(stranger, settings, code=2)
    assert "RAY_AUTH_MODE: the cluster asks for its token" in said
    assert "RAY_AUTH_TOKEN_PATH" in said
    (tmp_path / "wrong").write_text("0" * 64)
    wrong = other | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}
    _, said = sdo_submit(replace(cluster, environment=wrong), settings, code=2)
    assert "RAY_AUTH_MODE: the cluster asks for its token" in said
    assert "0" * 64 not in said


REFUSED = {
    "no address": ([], "--address: give the cluster's job server"),
    "relative storage": (["--set", "run.storage=runs"], "run.storage: 'runs' is relative"),
    "default storage": (["--set", "run={name: a}"], "run.storage: 'runs' is relative"),
    "prompts that do not travel": (["--set", "prompts.train=../p.parquet"], "prompts.train: '../p.parquet' is not in"),
    "a working directory without the settings": (["--working-dir", "prompts"], "does not hold"),
    "a model of this machine": (
        ["--set", "model.base=./mine"],
        "model.base: './mine' is of this machine, and models do",
    ),
    "a reward that is none": (
        ["--set", "evaluation.evaluators=[{name: beauty}]"],
        "evaluation.evaluators.0: there is no reward 'beauty'; there are ",
    ),
    "wrong settings": (["--set", "training.updates=many"], "training.updates: got 'many'"),
    "a secret in the settings": (["--set", "run.storage=s3://key:hunter2@b"], "run.storage: holds a user and password"),
    "a secret in the environment": (["--env", "DB_PASSWORD=hunter2"], "--env DB_PASSWORD: holds"),
    "no such job": (["--status", "--address", "http://127.0.0.1:9", "--timeout", "0"], "does not answer after 0 s"),
}


@pytest.mark.parametrize(("more", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_without_a_cluster(settings: Path, capsys, monkeypatch, more: list[str], said: str) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.chdir(settings.parent)
    (settings.parent / "prompts").mkdir()
    address = [] if said.startswith("--address") else ["--address", "http://127.0.0.1:9"]
    assert main(["align", str(settings), *address, *more]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "hunter2" not in shown.err + shown.out


OF_A_CYCLE = {
    "a stage's own setting": (["align.set={training.updatess: 3}"], "align.training.updatess: unknown setting"),
    "a stage's reward": (["evaluate.set={rewards.0.name: beauty}"], "evaluate.rewards.0: there is no reward 'beauty'"),
    "a stage's model": ([], "evaluate.models.base: './here' is of this machine"),
    "a stage's file": (["promote.config=/elsewhere/promote.yaml"], "promote: there is no file"),
}


@pytest.mark.parametrize(("overrides", "said"), OF_A_CYCLE.values(), ids=OF_A_CYCLE.keys())
def test_a_cycle_that_its_stages_would_refuse(
    tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], said: str
) -> None:
    config = tiny_cycle(tmp_path, tiny_base, "ink > base", run={"storage": "/shared"})
    if not overrides:
        evaluate = tmp_path / "evaluate.yaml"
        evaluate.write_text(evaluate.read_text().replace(str(tiny_base), "./here"))
    more = [part for override in overrides for part in ("--set", override)]
    assert main(["cycle", str(config), "--address", "http://127.0.0.1:9", *more]) == 2
    assert said in capsys.readouterr().err


def test_a_promotion_by_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "promote.yaml"
    config.write_text("{evaluation: {name: x, storage: runs}, promotion: {model: m, rules: [q > base]}}")
    assert main(["promote", str(config), "--address", "http://127.0.0.1:9"]) == 2
    assert "evaluation.storage: 'runs' is relative" in capsys.readouterr().err


def test_what_a_cycle_s_stages_name_travels(tmp_path: Path, tiny_base: Path) -> None:
    config = tiny_cycle(tmp_path, tiny_base, "ink > base")
    kinds = {name: COMMANDS[name].settings_class() for name in STAGES}
    files = settings_files(CycleSettings, config, read_settings(config), kinds)
    named = {path.name for path in named_files(files, tmp_path)}
    assert named == {"cycle.yaml", "settings.yaml", "evaluate.yaml", "promote.yaml", "raw.txt"}

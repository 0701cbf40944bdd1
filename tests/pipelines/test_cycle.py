"""A cycle on a real MLflow server: trains once, promotes the better, refuses the worse, goes on after a kill."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from pipelines.cycle import main
from tests.support.cycles import INK, MODEL, tiny_cycle
from tests.support.mlflow_server import MlflowServer, mlflow_server
from tests.support.runs import AlignProcess

BETTER = (f"{INK} > base", f"{INK} > champion")
"""The rules: darker than the base and than the champion."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


def run_cycle(server: MlflowServer, settings: Path, *arguments: str, code: int) -> str:
    with AlignProcess(str(settings), *arguments, command="cycle", environment=server.environment) as cycle:
        return cycle.finish(code)


def summary(directory: Path, name: str) -> dict:
    return json.loads((directory / "runs" / name / "summary.json").read_text())


def champion(server: MlflowServer) -> str | None:
    client = mlflow.MlflowClient(server.uri, server.uri)
    return client.get_registered_model(MODEL).aliases.get("champion")


@pytest.mark.slow
def test_promote_refuse_and_go_on(server: MlflowServer, tiny_base: Path, tmp_path: Path) -> None:
    settings = tiny_cycle(tmp_path, tiny_base, *BETTER)
    with AlignProcess(str(settings), command="cycle", environment=server.environment) as cycle:
        cycle.until("update 1/2")
        second = subprocess.run(
            [sys.executable, "-m", "pipelines.cycle", str(settings)],
            env=cycle.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 4, second.stderr
        assert "is being worked on by process" in second.stderr
        cycle.kill_everything()
    output = run_cycle(server, settings, code=0)
    assert "promoted" in output
    told = summary(tmp_path, "first")
    assert (told["decision"], told["champion"], told["exit_code"]) == ("promoted", f"models:/{MODEL}/1", 0)
    assert [stage["status"] for stage in told["stages"]] == ["done"] * 3
    assert champion(server) == "1"

    # The stages' runs are children of the cycle's.
    client = mlflow.MlflowClient(server.uri, server.uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    children = client.search_runs(experiments, f"tags.mlflow.parentRunId = '{told['mlflow_run_id']}'")
    assert sorted(run.info.run_name for run in children) == ["first-align", "first-evaluate-1"]

    again = run_cycle(server, settings, code=0)
    assert "is complete" in again
    assert "update " not in again

    worse = tmp_path / "worse"
    worse.mkdir()
    settings = tiny_cycle(worse, tiny_base, *BETTER, ink=-1.0, run={"name": "second"})
    output = run_cycle(server, settings, code=3)
    assert "FAIL" in output
    told = summary(worse, "second")
    assert (told["decision"], told["candidate"], told["champion"]) == (
        "refused",
        f"models:/{MODEL}/2",
        f"models:/{MODEL}/1",
    )
    assert champion(server) == "1"
    assert "FAIL" in client.get_model_version(MODEL, "2").tags["sdo.refused"]


@pytest.mark.slow
def test_two_cycles_at_once_end_with_one_consistent_registry(
    server: MlflowServer, tiny_base: Path, tmp_path: Path
) -> None:
    cycles = []
    for name, seed in (("left", 5), ("right", 6)):
        (tmp_path / name).mkdir()
        settings = tiny_cycle(tmp_path / name, tiny_base, f"{INK} > base", run={"name": name, "seed": seed})
        cycles.append(AlignProcess(str(settings), command="cycle", environment=server.environment))
    with cycles[0], cycles[1]:
        for cycle in cycles:
            cycle.finish(code=0)
    told = [summary(tmp_path / name, name) for name in ("left", "right")]
    now = f"models:/{MODEL}/{champion(server)}"
    candidates = {one["candidate"] for one in told}
    assert len(candidates) == 2
    assert now in candidates
    # Who came second was evaluated against who came first.
    [last] = [one for one in told if one["candidate"] == now]
    verdict = next(stage for stage in reversed(last["stages"]) if stage["name"].startswith("promote"))
    [other] = candidates - {now}
    assert verdict["facts"]["champion"] == other
    client = mlflow.MlflowClient(server.uri, server.uri)
    assert f"models:/{MODEL}/{client.get_registered_model(MODEL).aliases['previous']}" == other


CASES = {
    "no such stage file": (["align.config=none.yaml"], "align: there is no file"),
    "a stage's own setting": (["evaluate.set={samplers.cuont: 2}"], "evaluate.samplers.cuont: unknown setting"),
    "no rule": (["promote.set={promotion.rules: [better]}"], "promotion.rules.0: 'better'"),
    "another model": (["promote.set={promotion.model: other}"], "the cycle promotes what it registers"),
    "no prompts": (["prompts.source=none.txt"], "prompts.source: 'none.txt' does not exist"),
    "too few prompts": (["prompts.min_words=5"], "each side takes 2 or more"),
}


@pytest.mark.parametrize(("overrides", "said"), CASES.values(), ids=CASES.keys())
def test_refused(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], said: str
) -> None:
    settings = tiny_cycle(tmp_path, tiny_base, *BETTER)
    assert main([str(settings), *(part for override in overrides for part in ("--set", override))]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs/first-align").exists()

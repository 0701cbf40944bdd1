"""A cycle on a real MLflow server: trains once, promotes the better, refuses the worse, goes on after a kill."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

import pipelines.cycle as module
from pipelines.cycle import main
from sdo_ray.config.evaluate import EvaluateSettings
from sdo_ray.promotion.promote import Promotion
from sdo_ray.settings import SettingsError
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
    "a reward that is none": (["evaluate.set={rewards.1.name: beauty}"], "evaluate.rewards.1"),
    "another that is none": (["align.set={rewards.terms.0.name: beauty}"], "align.rewards.terms.0"),
    "a batch": (["align.set={training.batch_size: 7}"], "align.training.batch_size: got 7"),
    "a metric that nobody measures": (
        ["promote.set={promotion.rules: [qq > base]}"],
        "promote.promotion.rules.0: 'qq > base': there is no qq of the candidate; the evaluation measures",
    ),
    "a metric that takes more images": (
        ["promote.set={promotion.rules: [diversity > base]}"],
        "there is no diversity of the candidate",
    ),
    "too few prompts for a rule": (
        [f"promote.set={{promotion.rules: ['{INK} > base, 95 % confidence']}}"],
        "promote.promotion.rules.0: 'tests.support.ink:Ink > base, 95 % confidence': 6 prompts cannot show that",
    ),
    "another base": (["evaluate.set={models.base: zoo://emoji}"], "evaluate.models.base: got 'zoo://emoji', and"),
    "too few prompts": (["prompts.min_words=5"], "each side takes 2 or more"),
}


@pytest.mark.parametrize(("overrides", "said"), CASES.values(), ids=CASES.keys())
def test_refused(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], said: str
) -> None:
    settings = tiny_cycle(tmp_path, tiny_base, *BETTER)
    assert main([str(settings), *(part for override in overrides for part in ("--set", override))]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs/first").exists()


@pytest.fixture
def stubbed(tiny_base: Path, tmp_path: Path, registry_uri: str, monkeypatch: pytest.MonkeyPatch) -> dict:
    """A cycle whose stages cost nothing: what they are called with, and what `promote` decides next."""
    said: dict = {"evaluated": [], "decisions": []}

    def evaluate(job: EvaluateSettings) -> None:
        said["evaluated"].append((job.run.name, job.models.champion, job.run.seed))

    def promote(*_: object) -> Promotion:
        decision = said["decisions"].pop(0)
        if isinstance(decision, Exception):
            raise decision
        return Promotion(decision, "", "models:/glossy/1", None, "", (), "", "")

    outcome = SimpleNamespace(places={"registered model": "models:/glossy/1"})
    monkeypatch.setattr(module, "align", lambda _: outcome)
    monkeypatch.setattr(module, "evaluate", evaluate)
    monkeypatch.setattr(module, "promote", promote)
    settings = tiny_cycle(tmp_path, tiny_base, *BETTER, run={"storage": str(tmp_path / "runs")})
    for path in (tmp_path / "settings.yaml", tmp_path / "promote.yaml"):
        path.write_text(path.read_text().replace(MODEL, "glossy"))
    return said | {"settings": settings}


def test_after_five_changes_of_the_champion_it_goes_on(stubbed: dict, capsys: pytest.CaptureFixture[str]) -> None:
    stubbed["decisions"] += ["outdated"] * 5 + ["promoted"]
    assert main([str(stubbed["settings"])]) == 1
    assert "the same command tries again" in capsys.readouterr().err
    assert main([str(stubbed["settings"])]) == 0
    assert [name for name, *_ in stubbed["evaluated"]] == [f"first-evaluate-{n}" for n in range(1, 7)]


def test_cycles_evaluate_on_noise_of_their_own(stubbed: dict) -> None:
    for name in ("first", "second"):
        stubbed["decisions"].append("refused")
        assert main([str(stubbed["settings"]), "--set", f"run.name={name}"]) == 3
    (_, _, one), (_, _, other) = stubbed["evaluated"]
    assert one != other


def test_a_late_stage_says_which_it_is(stubbed: dict, capsys: pytest.CaptureFixture[str]) -> None:
    stubbed["decisions"].append(SettingsError("evaluation: its files were changed"))
    assert main([str(stubbed["settings"])]) == 1
    said = capsys.readouterr().err
    assert "sdo cycle stopped: stage promote-1: evaluation: its files were changed." in said
    assert "did not start" not in said

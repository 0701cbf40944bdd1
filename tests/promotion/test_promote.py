"""Promotion and rollback on a real registry."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from sdo_ray.config.loading import load_settings
from sdo_ray.evaluation.result import Evaluation, read_evaluation, write_evaluation
from sdo_ray.promotion import lock
from sdo_ray.promotion import promote as module
from sdo_ray.promotion.aliases import MOVE
from sdo_ray.promotion.lock import LeaseOver
from sdo_ray.promotion.promote import Promotion, promote, roll_back
from sdo_ray.promotion.settings import PromoteSettings
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from tests.support.killed import Killed, kill_at
from tests.support.registry import MODEL, evaluation, promotion_settings

BETTER = {"candidate_q": [2.0, 2.0, 3.0, 3.0] * 2, "base_q": [0.0] * 8, "champion_q": [1.0] * 8}
RULES = ("q > champion, 95 % sure", "q >= 0.9 * base")


def settings(directory: Path, it: Evaluation, *rules: str) -> PromoteSettings:
    return load_settings(PromoteSettings, promotion_settings(directory, it, *(rules or RULES)))


def attempt(directory: Path, uri: str, it: Evaluation, *rules: str) -> Promotion:
    return promote(settings(directory, it, *rules), uri)


def aliases(client: mlflow.MlflowClient) -> dict[str, int]:
    return {alias: int(version) for alias, version in client.get_registered_model(MODEL).aliases.items()}


def tags(client: mlflow.MlflowClient, version: int) -> dict[str, str]:
    return client.get_model_version(MODEL, str(version)).tags


def test_the_first_champion_and_the_next(tmp_path: Path, uri: str, client: mlflow.MlflowClient) -> None:
    first = attempt(tmp_path, uri, evaluation(1, **BETTER))
    assert first.decision == "promoted"
    assert first.champion is None
    assert "no champion yet" in first.verdicts[0].reason
    assert aliases(client) == {"champion": 1}

    second = attempt(tmp_path, uri, evaluation(3, 1, **BETTER))
    assert second.decision == "promoted"
    assert (second.candidate, second.champion) == (f"models:/{MODEL}/3", f"models:/{MODEL}/1")
    assert aliases(client) == {"champion": 3, "previous": 1}
    assert str(second).splitlines()[-1] == (
        f"promoted: models:/{MODEL}@champion is version 3; version 1 is kept as @previous; candidate 1 of those "
        "compared with this champion"
    )
    kept = tags(client, 3)
    assert kept["sdo.champion_before"] == "1"
    assert kept["sdo.promoted"] == f"{second.when} by {second.by}"
    assert kept["sdo.rules"].splitlines()[1] == "pass  q >= 0.9 * base: 2.5 against 0; difference +2.5"
    assert kept["sdo.evaluation"] == str(tmp_path / "runs/evaluated")
    assert (
        client.get_run(kept["sdo.evaluation.run"]).data.tags["sdo.evaluation.sha256"] == kept["sdo.evaluation.sha256"]
    )


def test_refused_by_the_rules_it_says_why(tmp_path: Path, uri: str, client: mlflow.MlflowClient) -> None:
    attempt(tmp_path, uri, evaluation(1, **BETTER))
    worse = evaluation(2, 1, candidate_q=[1.0, 1.0, 1.0, 0.0], champion_q=[1.0] * 4)
    refused = attempt(tmp_path, uri, worse, "q > champion", "q >= 0.7 * champion", "q >= base + 1")
    assert refused.decision == "refused"
    assert [verdict.passed for verdict in refused.verdicts] == [False, True, False]
    assert refused.reason == f"models:/{MODEL}/2 fails 2 of 3 rules"
    assert aliases(client) == {"champion": 1}
    said = tags(client, 2)["sdo.refused"].splitlines()
    assert said[0] == f"{refused.when} by {refused.by}, {tmp_path}/runs/evaluated:"
    assert said[1] == "FAIL  q > champion: 0.75 against 1; difference -0.25"
    assert said[2] == "FAIL  q >= base + 1: 0.75 against 1; difference -0.25"
    assert "sdo.promoted" not in tags(client, 2)
    # A later evaluation that it passes takes the refusal away.
    assert attempt(tmp_path, uri, evaluation(2, 1, **BETTER)).decision == "promoted"
    assert tags(client, 2)["sdo.refused"] == ""


def test_the_same_call_again_says_the_same(tmp_path: Path, uri: str, client: mlflow.MlflowClient) -> None:
    client.set_registered_model_alias(MODEL, "champion", "1")
    its = settings(tmp_path, evaluation(2, 1, **BETTER))
    assert promote(its, uri).decision == "promoted"
    before = tags(client, 2)
    again = promote(its, uri)
    assert (again.decision, again.reason) == ("promoted", f"models:/{MODEL}/2 is the champion, by this evaluation")
    assert tags(client, 2) == before
    assert aliases(client) == {"champion": 2, "previous": 1}
    tightened = its.model_copy(update={"promotion": its.promotion.model_copy(update={"rules": ["q > 100"]})})
    assert "; 1 of those of now fail, which takes nothing back" in promote(tightened, uri).reason


def test_killed_with_the_alias_moved_it_is_completed_by_the_next(
    tmp_path: Path, uri: str, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/promotion/test_aliases.py stops at every point; this is one with the commands around it."""
    client.set_registered_model_alias(MODEL, "champion", "2")
    its = settings(tmp_path, evaluation(3, 2, **BETTER))
    monkeypatch.setattr(lock, "LONGEST", 0.2)  # of the ticket that the dead one leaves
    for act in (lambda: promote(its, uri), lambda: roll_back(its, 3, "hands", uri)):
        with monkeypatch.context() as patch:
            kill_at(patch, 2)
            with pytest.raises(Killed):
                act()
        assert MOVE in client.get_registered_model(MODEL).tags
        act()
        assert MOVE not in client.get_registered_model(MODEL).tags
    assert aliases(client) == {"champion": 2, "previous": 2}  # none before
    assert tags(client, 3)["sdo.rolled_back"].endswith(": hands")


@pytest.mark.parametrize(
    ("it", "said"),
    [
        (
            evaluation(3, 2, **BETTER),
            "champion is models:/glossy/1, and the evaluation compared with models:/glossy/2",
        ),
        (evaluation(3, **BETTER), "champion is models:/glossy/1, and the evaluation compared with nothing"),
        (evaluation(1, **BETTER), "models:/glossy/1 is the champion already"),
        (
            evaluation(3, 1, details={"sha256": {"candidate": "other files"}}, **BETTER),
            "files of models:/glossy/3 are not those that were evaluated",
        ),
    ],
    ids=["champion moved", "no champion evaluated", "champion itself", "other files"],
)
def test_an_evaluation_out_of_date_decides_nothing(
    tmp_path: Path, uri: str, client: mlflow.MlflowClient, it: Evaluation, said: str
) -> None:
    client.set_registered_model_alias(MODEL, "champion", "1")
    before = tags(client, 3)
    outdated = attempt(tmp_path, uri, it)
    assert outdated.decision == "outdated"
    assert outdated.reason.removeprefix("the ") == f"{said}; evaluate again"
    assert outdated.verdicts == ()
    assert aliases(client) == {"champion": 1}
    assert tags(client, 3) == before


def test_the_champion_went_away(tmp_path: Path, uri: str) -> None:
    assert attempt(tmp_path, uri, evaluation(3, 1, **BETTER)).reason == (
        "the champion is nothing, and the evaluation compared with models:/glossy/1; evaluate again"
    )


def test_the_champion_is_looked_at_again_under_the_lock(
    tmp_path: Path, uri: str, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While this one reads the candidate's files, another promotes."""
    attempt(tmp_path, uri, evaluation(1, **BETTER))
    read = module.check_files

    def slow(*arguments: Any) -> None:
        read(*arguments)
        client.set_registered_model_alias(MODEL, "champion", "2")

    monkeypatch.setattr(module, "check_files", slow)
    outdated = attempt(tmp_path, uri, evaluation(3, 1, **BETTER))
    assert outdated.decision == "outdated"
    assert outdated.champion == f"models:/{MODEL}/2"
    assert aliases(client) == {"champion": 2}


def artifacts(client: mlflow.MlflowClient, version: int) -> Path:
    return Path(client.get_model_version(MODEL, str(version)).source.removeprefix("file://"))


@pytest.mark.parametrize(
    ("file", "what"), [("artifacts/recipe.json", "files"), ("MLmodel", "logged model"), ("artifacts/x.json", "files")]
)
def test_files_that_were_changed_are_not_promoted(
    tmp_path: Path, uri: str, client: mlflow.MlflowClient, file: str, what: str
) -> None:
    (artifacts(client, 1) / file).write_text("python_function: {loader_module: other}")
    with pytest.raises(SettingsError, match=f"models:/{MODEL}/1: its {what} in the registry have the fingerprint"):
        attempt(tmp_path, uri, evaluation(1, **BETTER))
    assert aliases(client) == {}


def test_a_version_without_files_is_not_promoted(tmp_path: Path, uri: str, client: mlflow.MlflowClient) -> None:
    shutil.rmtree(artifacts(client, 1))
    with pytest.raises(SettingsError, match="changed, damaged or removed"):
        attempt(tmp_path, uri, evaluation(1, **BETTER))


def test_an_evaluation_that_was_changed_in_its_storage_is_refused(
    tmp_path: Path, uri: str, client: mlflow.MlflowClient
) -> None:
    its = settings(tmp_path, evaluation(1, **BETTER), "q > 3")
    assert promote(its, uri).decision == "refused"
    run = RunDirectory(its.evaluation.storage, its.evaluation.name)
    known = read_evaluation(run)
    assert known is not None
    write_evaluation(run, replace(known, images=evaluation(1, candidate_q=[9.0] * 8).images))
    with pytest.raises(SettingsError, match="its files are not those that its MLflow run"):
        promote(its, uri)
    write_evaluation(run, replace(known, details={"sha256": known.details["sha256"]}))
    with pytest.raises(SettingsError, match="is of an earlier version, which did not note its files in MLflow"):
        promote(its, uri)


def test_a_champion_that_is_gone_is_not_forgotten(tmp_path: Path, uri: str, client: mlflow.MlflowClient) -> None:
    """With the version its alias is deleted, and any candidate would pass `q > champion`."""
    attempt(tmp_path, uri, evaluation(1, **BETTER))
    client.delete_registered_model_alias(MODEL, "champion")
    worse = settings(tmp_path, evaluation(2, candidate_q=[-9.0] * 8), "q > champion", "q > -10")
    with pytest.raises(SettingsError, match=r"'glossy' has no champion, but there were some: version 1 .* --first"):
        promote(worse, uri)
    assert promote(worse, uri, first=True).decision == "promoted"


def test_candidates_compared_with_one_champion_are_counted(tmp_path: Path, uri: str) -> None:
    attempt(tmp_path, uri, evaluation(1, **BETTER))
    worse = evaluation(2, 1, candidate_q=[0.0] * 8, champion_q=[1.0] * 8)
    assert attempt(tmp_path, uri, worse).tried == 1
    assert attempt(tmp_path, uri, worse).tried == 1  # the same once more
    third = attempt(tmp_path, uri, evaluation(3, 1, **BETTER))
    assert (third.decision, third.tried) == ("promoted", 2)
    assert str(third).splitlines()[-1].endswith("; candidate 2 of those compared with this champion")


def test_rules_by_what_was_trained_on_are_noted(tmp_path: Path, uri: str) -> None:
    details = {"metrics": {"q": {"trained_on": True}}}
    said = str(attempt(tmp_path, uri, evaluation(1, details=details, **BETTER), "q > 0", "q > base"))
    assert said.count("note: the candidate learned from q, which so says how well it learned") == 1


def test_too_slow_for_the_lock_it_moves_nothing(
    tmp_path: Path, uri: str, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = settings(tmp_path, evaluation(1, **BETTER))
    # Once it has the lock, it takes too long.
    monkeypatch.setattr(module, "complete", lambda *_: monkeypatch.setattr(lock, "PATIENCE", 100.0))
    with pytest.raises(LeaseOver, match="nothing more was changed"):
        promote(it, uri)
    assert aliases(client) == {}


def test_something_that_takes_no_lock_is_noticed(
    tmp_path: Path, uri: str, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mlflow.MlflowClient.set_registered_model_alias

    def interfered(self: Any, name: str, alias: str, version: str) -> None:
        real(self, name, alias, version)
        real(self, name, alias, "3")

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", interfered)
    with pytest.raises(LeaseOver, match="champion was set to version 1 and is 3: something moves it"):
        attempt(tmp_path, uri, evaluation(1, **BETTER))


@pytest.mark.parametrize(
    ("it", "said"),
    [
        (evaluation(1, model="other"), "its candidate is models:/other/1, and promotion.model is 'glossy'"),
        (evaluation(9), "'models:/glossy/9' is not in the registry at sqlite:"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(tmp_path: Path, uri: str, it: Evaluation, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        attempt(tmp_path, uri, it)


def test_no_evaluation_and_no_model(tmp_path: Path, uri: str) -> None:
    it = settings(tmp_path, evaluation(1))
    with pytest.raises(SettingsError, match=r"evaluation: there is no complete one in .*/none; run `sdo evaluate`"):
        promote(it.model_copy(update={"evaluation": it.evaluation.model_copy(update={"name": "none"})}), uri)
    with pytest.raises(SettingsError, match=r"promotion.model: the registry at sqlite:.* has no model 'none'"):
        promote(it.model_copy(update={"promotion": it.promotion.model_copy(update={"model": "none"})}), uri)


def test_back_by_version_and_more_than_one_step(tmp_path: Path, uri: str, client: mlflow.MlflowClient) -> None:
    for version, champion in ((1, None), (2, 1), (3, 2)):
        attempt(tmp_path, uri, last := evaluation(version, champion, **BETTER))
    it = settings(tmp_path, last)
    with pytest.raises(SettingsError, match="--rollback: got 2, and the champion of 'glossy' is 3"):
        roll_back(it, 2, "it draws hands badly", uri)
    back = roll_back(it, 3, "it draws hands badly", uri)
    assert (back.champion, back.instead_of) == (f"models:/{MODEL}/2", f"models:/{MODEL}/3")
    assert aliases(client) == {"champion": 2, "previous": 1}
    assert tags(client, 3)["sdo.rolled_back"] == f"{back.when} by {back.by}: it draws hands badly"
    again = roll_back(it, 3, "once more", uri)  # as after an interruption
    assert again == back
    assert roll_back(it, 2, "this too", uri).champion == f"models:/{MODEL}/1"
    assert aliases(client) == {"champion": 1, "previous": 1}  # none before
    with pytest.raises(SettingsError, match="has no champion before version 1 to go back to"):
        roll_back(it, 1, "and this", uri)


def test_rolled_back_it_is_not_promoted_by_the_same_evaluation(
    tmp_path: Path, uri: str, client: mlflow.MlflowClient
) -> None:
    """It fits the champion again, and would promote it once more at the next schedule."""
    client.set_registered_model_alias(MODEL, "champion", "2")
    it = settings(tmp_path, evaluation(3, 2, **BETTER))
    promote(it, uri)
    roll_back(it, 3, "it draws hands badly", uri)
    again = promote(it, uri)
    assert again.decision == "outdated"
    assert "was promoted by this evaluation and rolled back" in again.reason
    assert "it draws hands badly" in again.reason
    assert attempt(tmp_path, uri, evaluation(3, 2, **BETTER)).decision == "promoted"  # another evaluation
    assert aliases(client) == {"champion": 3, "previous": 2}
    assert tags(client, 3)["sdo.rolled_back"] == ""


def test_nothing_to_roll_back(tmp_path: Path, uri: str) -> None:
    it = settings(tmp_path, evaluation(1, **BETTER))
    with pytest.raises(SettingsError, match="got 1, and the champion of 'glossy' is none"):
        roll_back(it, 1, "why not", uri)
    with pytest.raises(SettingsError, match="--rollback: 'models:/glossy/9' is not in the registry"):
        roll_back(it, 9, "why not", uri)
    promote(it, uri)
    with pytest.raises(SettingsError, match="no champion before version 1"):
        roll_back(it, 1, "why not", uri)


def test_a_summary_for_programs(tmp_path: Path, uri: str) -> None:
    summary = json.loads(json.dumps(attempt(tmp_path, uri, evaluation(1, **BETTER)).to_dict()))
    assert summary["decision"] == "promoted"
    assert summary["candidate"] == f"models:/{MODEL}/1"
    assert summary["verdicts"][1]["margin"] == 2.5

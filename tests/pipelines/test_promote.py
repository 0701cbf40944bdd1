"""`sdo promote`: exit codes, summaries and messages."""

import json
from pathlib import Path

import mlflow
import pytest

from pipelines.promote import main
from tests.support.registry import MODEL, evaluation, promotion_settings

pytestmark = pytest.mark.usefixtures("registry_uri")

BETTER = {"candidate_q": [2.0, 2.0, 3.0, 3.0], "base_q": [0.0] * 4, "champion_q": [1.0] * 4}


def test_promoted(tmp_path: Path, capsys) -> None:
    assert main([str(promotion_settings(tmp_path, evaluation(1, **BETTER), "q > champion", "q > base"))]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "pass  q > champion: no champion yet, so nothing to be better than",
        "pass  q > base: 2.5 against 0; difference +2.5",
        f"promoted: models:/{MODEL}@champion is version 1",
        f"{tmp_path}/runs/evaluated/promotion.json",
    ]
    summary = json.loads(Path(out[-1]).read_text())
    assert (summary["decision"], summary["candidate"]) == ("promoted", f"models:/{MODEL}/1")


def test_refused_by_the_rules(tmp_path: Path, capsys) -> None:
    assert main([str(promotion_settings(tmp_path, evaluation(1, **BETTER), "q > 3"))]) == 3
    out = capsys.readouterr().out
    assert "FAIL  q > 3: 2.5 against 3; difference -0.5" in out
    assert json.loads((tmp_path / "runs/evaluated/promotion.json").read_text())["decision"] == "refused"


def test_out_of_date(tmp_path: Path, capsys) -> None:
    assert main([str(promotion_settings(tmp_path, evaluation(1, 2, **BETTER), "q > 0"))]) == 2
    assert "evaluate again" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs/evaluated/promotion.json").read_text())["decision"] == "outdated"


def test_rollback(tmp_path: Path, capsys) -> None:
    main([str(promotion_settings(tmp_path, evaluation(1, **BETTER), "q > 0"))])
    settings = str(promotion_settings(tmp_path, evaluation(2, 1, **BETTER), "q > champion"))
    assert main([settings]) == 0
    assert main([settings, "--rollback", "2"]) == 2
    assert "--why: a rollback takes a reason" in capsys.readouterr().err
    assert main([settings, "--rollback", "2", "--why", "too dark"]) == 0
    assert f"models:/{MODEL}/1 is champion again, instead of models:/{MODEL}/2" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs/evaluated/rollback.json").read_text())["why"] == "too dark"
    assert main([settings, "--rollback", "1", "--why", "too dark"]) == 2
    assert "no champion before version 1 to go back to" in capsys.readouterr().err


def test_every_bad_rule_is_named_before_anything_is_asked(tmp_path: Path, capsys, monkeypatch) -> None:
    config = promotion_settings(tmp_path, evaluation(1), "q > 0", "q >", "q > base, 20 % sure")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main([str(config)]) == 2
    said = capsys.readouterr().err
    assert "promotion.rules.1: 'q >': at its end, expected base or champion or a number" in said
    assert "promotion.rules.2: 'q > base, 20 % sure': got 20 % confidence" in said
    assert "promotion.rules.0" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rules": []}, "promotion.rules: got []"),
        ({"model": "a/b"}, "promotion.model: got 'a/b'"),
        ({"lock_seconds": 1.0}, "promotion.lock_seconds: got 1.0"),
        ({"rule": ["q > 0"]}, "promotion.rule: unknown setting"),
    ],
)
def test_bad_settings(tmp_path: Path, capsys, changes: dict, said: str) -> None:
    settings = {"model": MODEL, "rules": ["q > 0"]} | changes
    model, rules = settings.pop("model"), settings.pop("rules")
    assert main([str(promotion_settings(tmp_path, evaluation(1), *rules, model=model, **settings))]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "x" * 300])
def test_an_evaluation_is_a_directory_of_its_storage(tmp_path: Path, capsys, name: str) -> None:
    settings = promotion_settings(tmp_path, evaluation(1), "q > 0")
    assert main([str(settings), "--set", f"evaluation.name='{name}'"]) == 2
    assert "evaluation.name: got " in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", "mlartifacts", "mlruns", "promote.yaml", "runs"}


def test_a_failure_of_the_server_is_said_in_a_line(tmp_path: Path, capsys, monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise mlflow.exceptions.MlflowException("disk full at postgresql://mlflow:hunter2@db/x")

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", fails)
    assert main([str(promotion_settings(tmp_path, evaluation(1, **BETTER), "q > 0"))]) == 1
    said = capsys.readouterr().err
    assert said.startswith("\nsdo promote stopped: MLflow: disk full at postgresql://***db/x\nOnce mended, ")


def test_the_help_lists_the_flags(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert "--rollback VERSION" in said
    assert "--why TEXT" in said
    assert "3 refused by the rules" in " ".join(said.split())

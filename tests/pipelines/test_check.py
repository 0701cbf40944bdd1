"""`sdo check`: what a command would refuse, without the command."""

from pathlib import Path

import pytest
import ray
import yaml

from pipelines import check, cli
from pipelines.commands import commands_with_settings
from sdo_ray.settings import SettingsError
from tests.support.runs import REPOSITORY, tiny_settings


def test_every_settings_file_of_the_product_is_known_by_its_sections() -> None:
    kinds = commands_with_settings()
    files = sorted((REPOSITORY / "pipelines/configs").glob("*.yaml"))
    for file in files:
        first = file.stem.partition("_")[0]
        found = check.command_of(yaml.safe_load(file.read_text()), kinds)
        assert found == (first if first in kinds else "align"), file
    assert len(files) > 8


@pytest.mark.parametrize("settings", [{}, {"run": {}}, {"nothing": 1, "more": 2}])
def test_what_may_be_anything_is_asked_for(settings: dict) -> None:
    with pytest.raises(SettingsError, match=r"--as: its sections .* may be of .*; say which"):
        check.command_of(settings, commands_with_settings())


def test_nothing_is_wrong(tiny_base: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = tiny_settings(tmp_path, tiny_base)
    before = ray.is_initialized()
    assert cli.main(["check", str(settings), "--set", "training.dry_batch=false"]) == 0
    assert f"nothing is wrong: `sdo align {settings}` can start" in capsys.readouterr().out
    assert before or not ray.is_initialized()
    assert not (tmp_path / "runs/tiny").exists()


def test_what_is_wrong_is_said_as_the_command_would(tiny_base: Path, tmp_path: Path, capsys) -> None:
    settings = tiny_settings(tmp_path, tiny_base)
    assert cli.main(["check", str(settings), "--set", "training.batch_size=7", "--set", "model.base=/nowhere"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("sdo check did not start:\n  - ")
    assert "training.batch_size: got 7, which samplers.batch_size = 2 does not divide" in said
    assert "model.base: " in said
    assert cli.main(["check", str(tmp_path / "none.yaml")]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert cli.main(["check", str(settings), "--as", "evaluate"]) == 2
    assert "training: unknown setting" in capsys.readouterr().err

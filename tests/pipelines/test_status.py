"""`sdo status` and `sdo completion`."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.commands import COMMANDS
from sdo_ray.driver.lock import driver_lock
from sdo_ray.driver.state import SETTINGS, StateFile
from sdo_ray.storage import RunDirectory


def test_a_line_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(str(tmp_path / "runs"), "emoji")
    run.write_json(SETTINGS, {"trainers": {}})
    StateFile(run, "align").write(3, 10, "updates", reward=0.54321)
    monkeypatch.chdir(tmp_path)
    with driver_lock(run):
        assert cli.main(["ls"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "command", "state", "done", "reward", "last", "heard", "(UTC)", "where"]
    assert line.startswith("emoji  align    running (process ")
    assert "3/10 updates  0.543  " in line
    assert line.endswith(str(tmp_path / "runs/emoji"))
    assert cli.main(["status", "runs", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["name"], found["says"], found["progress"]["numbers"]) == ("emoji", "stopped", {"reward": 0.54321})


def test_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"there are no runs in {tmp_path}\n"
    assert cli.main(["status", "carrier-pigeon://x"]) == 2
    assert "run.storage: " in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_takes_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("sdo al", {"align"}),
        ("sdo submit ", {"align", "evaluate", "cycle"}),
        ("sdo promote --roll", {"--rollback"}),
        ("sdo align settin", {"settings.yaml"}),
    ],
)
def test_bash_completes(line: str, offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["completion", "bash"])
    (tmp_path / "settings.yaml").write_text("")
    (tmp_path / "sdo").write_text("#!/bin/sh\necho '[--rollback VERSION] [--why TEXT]'\n")
    (tmp_path / "sdo").chmod(0o755)
    words = line.split(" ")
    ask = f"COMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words) - 1}; _sdo; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    script = f"PATH={tmp_path}:$PATH\n{capsys.readouterr().out}\n{ask}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert offered <= set(done.stdout.split())
    if len(offered) == 1:
        assert set(done.stdout.split()) == offered

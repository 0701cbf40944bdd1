"""However a job ends: its exit code, a line that says why, and Ray shut down."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from pipelines import cli
from pipelines.commands import COMMANDS, IF_BROKEN, Command
from sdo_ray.exit_codes import ExitCode
from tests.support.tiny_job import SECRET

REPOSITORY = Path(__file__).parents[2]
KEPT = "Its toys are kept; once mended, the same command goes on from there."
TINY = Command("do one thing", "tests.support.tiny_job", "tests.support.tiny_job:TinySettings", kept=KEPT)

Run = Callable[..., tuple[int, str, str]]


def written(directory: Path, does: str) -> str:
    file = directory / "tiny.yaml"
    file.write_text(f"run: {{name: tiny, storage: {directory}/runs}}\ndoes: {does}\n")
    return str(file)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`sdo tiny`, which does what it is told; returns its exit code and what it said on standard error."""
    monkeypatch.setitem(COMMANDS, "tiny", TINY)

    def tiny(does: str, *more: str) -> tuple[int, str, str]:
        code = cli.main(["tiny", written(tmp_path, does), *more])
        assert not ray.is_initialized()
        assert isinstance(code, int)
        said = capsys.readouterr()
        return code, said.err, said.out

    return tiny


def test_its_own_exit_code(run: Run) -> None:
    assert run("nothing")[:2] == (0, "")
    assert run("refuse")[:2] == (3, "")


@pytest.mark.parametrize(
    ("does", "cause"),
    [
        ("mlflow", "MLflow: no answer from https://***mlflow.example.com/"),
        ("artifacts", "MLflow: 500 Server Error: Internal Server Error for url: https://***mlflow.example.com/"),
        ("given up", "ValueError: this reward cannot score"),
        ("training", "RuntimeError: worker 1 died"),
        ("lease", "tiny: the lock ran out"),
        ("disk", "OSError: [Errno 28] No space left on device"),
        ("memory", "MemoryError"),
        ("bug", "KeyError: 'bug'"),
        ("raises", "ValueError: this reward cannot score https://***mlflow.example.com/"),
        ("dies", "The actor"),
    ],
)
def test_stopped_by_an_error(run: Run, tmp_path: Path, does: str, cause: str) -> None:
    code, said, _ = run(does)
    assert code == ExitCode.STOPPED == 1
    why, then = said.strip().splitlines()
    assert why.startswith(f"sdo tiny stopped: {cause}")
    file = tmp_path / "runs/tiny/traceback.txt"
    assert then == f"{KEPT} The traceback is in {file}."
    traceback = file.read_text()
    assert "tests/support/tiny_job.py" in traceback
    assert SECRET not in said + traceback


@pytest.mark.parametrize(
    ("does", "code", "lines"),
    [
        (
            "settings",
            ExitCode.BAD_INPUT,
            ["sdo tiny did not start:", "  - cluster: too small; add nodes.", "  - reward: cannot start; mend it."],
        ),
        (
            "busy",
            ExitCode.BUSY,
            ["", "sdo tiny was not started: runs/tiny is being worked on by process 7"],
        ),
        (
            "lost",
            ExitCode.UNAVAILABLE,
            ["", "sdo tiny lost the cluster, which does not answer any more: no route", KEPT],
        ),
        ("interrupt", ExitCode.INTERRUPTED, ["", f"sdo tiny was interrupted. {KEPT.replace(IF_BROKEN, '')}"]),
        ("told to end", ExitCode.INTERRUPTED, ["", f"sdo tiny was interrupted. {KEPT.replace(IF_BROKEN, '')}"]),
    ],
)
def test_other_ends(run: Run, tmp_path: Path, does: str, code: ExitCode, lines: list[str]) -> None:
    assert run(does)[:2] == (code, "\n".join([*lines, ""]))
    assert not (tmp_path / "runs").exists()


def test_bad_settings_come_before_the_driver(run: Run) -> None:
    code, said, _ = run("nothing", "--set", "run.nam=x", "--set", "more=1")
    assert code == 2
    assert "  - run.nam: unknown setting; there are name, storage, seed, wait_for_nodes; did you mean 'name'?" in said
    assert "  - more: got 1 (int)" in said


def test_a_traceback_that_the_runs_directory_cannot_take_is_kept_elsewhere(run: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    code, said, _ = run("bug")
    assert code == 1
    place = Path(said.rstrip(".\n").rpartition(" ")[2])
    assert place.name.startswith("sdo-tiny-")
    assert "KeyError" in place.read_text()
    place.unlink()


def test_ctrl_c(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.tiny_job", written(tmp_path, "wait")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What is started in the background, as a whole test run may be, ignores it from its birth.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().startswith("sdo tiny was interrupted. What is done is kept;")
    assert "Traceback" not in said


HEAVY = {"torch", "ray", "mlflow", "diffusers", "transformers", "deepspeed"}


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_that_takes_seconds(arguments: list[str]) -> None:
    code = f"""
import sys
from pipelines.cli import main
try:
    main({arguments})
except SystemExit as ended:
    assert not ended.code
print("imported:", *sorted({HEAVY} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "usage: sdo" in done.stdout
    assert done.stdout.endswith("\nimported:\n")


def test_an_unknown_command_names_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["algin"]) == 2
    said = capsys.readouterr().err
    assert "there is no command 'algin'; did you mean 'align'?" in said
    assert all(f"  {name} " in said for name in COMMANDS)


def test_the_table_is_of_what_exists() -> None:
    for name, command in COMMANDS.items():
        assert f"sdo {name}" in command.about()
        driver = command.driver()
        assert callable(driver.main)
        assert command.own_line or callable(driver.job)
        assert not command.settings or callable(driver.check)
        if command.settings:
            assert command.settings_class().__name__.endswith("Settings")

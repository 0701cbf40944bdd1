"""What docs/operations.md says of failures, really caused in runs of the command."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdo_ray.exit_codes import ExitCode
from sdo_ray.training.listing import LIST
from tests.support.runs import AlignProcess, final_adapter, tiny_settings

pytestmark = pytest.mark.slow

LONG = 120.0
"""Seconds that the processes of a run that ends may take to go."""


def slow_settings(directory: Path, base: Path, storage: Path | None = None) -> str:
    """Six updates, of a second or more each; checkpoints after each second one."""
    ink = {"name": "tests.support.ink:Ink", "weight": 1.0, "options": {"seconds": 0.3}}
    path = tiny_settings(
        directory,
        base,
        run={"storage": str(storage or directory / "runs")},
        rewards={"terms": [ink]},
        trainers={"count": 1},
        tracking={"preview_prompts": []},
    )
    return str(path)


def nothing_is_left(process: AlignProcess) -> bool:
    until = time.monotonic() + LONG
    while process.running() and time.monotonic() < until:
        time.sleep(0.5)
    return not process.running()


def goes_on(process: AlignProcess) -> None:
    """From one of the checkpoints that there may be by the third update."""
    process.until("7 prompts; update ")
    assert any(f"update {update} of 6 comes next" in process.output[-1] for update in (3, 5))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_driver_that_is_told_to_end_or_killed_leaves_nothing_running(
    tiny_base: Path, tmp_path: Path, number: signal.Signals
) -> None:
    settings = slow_settings(tmp_path, tiny_base)
    with AlignProcess(settings) as process:
        process.until("update 3/")
        if number == signal.SIGTERM:
            with AlignProcess(settings) as second:
                assert "is being worked on by process" in second.finish(ExitCode.BUSY)
        process.send_signal(number)
        began = time.monotonic()
        killed = number == signal.SIGKILL
        said = process.finish(-number if killed else ExitCode.INTERRUPTED)
        assert time.monotonic() - began < LONG
        assert ("the same command" in said) != killed
        assert nothing_is_left(process)
    if number == signal.SIGINT:
        with AlignProcess(settings) as again:
            goes_on(again)
            again.finish()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk takes the right to mount one")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    with open(disk / "full", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError:
            pass


@pytest.mark.parametrize(("fault", "cause"), [("full", "No space left on device"), ("read-only", "Read-only")])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_by_its_cause(
    tiny_base: Path, tmp_path: Path, disk: Path, fault: str, cause: str
) -> None:
    settings, place = slow_settings(tmp_path, tiny_base, disk / "runs"), disk / "runs/tiny/train"
    with AlignProcess(settings) as process:
        process.until("update 3/")
        if fault == "full":
            fill(disk)
        else:
            # Of the place of the checkpoints alone: MLflow's database is open for writing.
            for how in (["--bind", str(place)], ["-o", "remount,bind,ro"]):
                subprocess.run(["mount", *how, str(place)], check=True)
        said = process.finish(ExitCode.STOPPED)
        assert cause in said
        assert nothing_is_left(process)
    if fault == "full":
        os.remove(disk / "full")
        (disk / "runs/tiny" / LIST).write_bytes(b"")  # Ray Train writes it in place: whether it was cut here is luck
    else:
        subprocess.run(["umount", str(place)], check=True)
    with AlignProcess(settings) as again:  # once mended, the same command goes on
        goes_on(again)
        assert "update 6/6" in again.finish()


def test_contributions_that_the_object_store_has_no_room_for_go_by_the_disk(tiny_base: Path, tmp_path: Path) -> None:
    """An update's four, of 64 MB, are three times as large as the store; so is the policy beside one of them."""
    settings = tiny_settings(
        tmp_path,
        tiny_base,
        model={"lora": {"rank": 2**15, "alpha": 2.0**15, "targets": ["to_q", "to_v"]}},
        rewards={"terms": [{"name": "tests.support.ink:Ink", "weight": 1.0}]},
        training={"updates": 2, "checkpoint_every": 2, "learning_rate": 1e-5},
        trainers={"count": 1},
        evaluation={"num_prompts": 2},
        tracking={"preview_prompts": []},
    )
    small = {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(80 * 2**20)}
    with AlignProcess(str(settings), environment=small) as process:
        assert "update 2/2" in process.finish()
    adapter = final_adapter(tmp_path)
    assert sum(w.numel() * w.element_size() for w in adapter.values()) > 35 * 2**20

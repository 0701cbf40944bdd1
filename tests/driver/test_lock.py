"""One driver at a time works on a run; two writers of one file do not meet."""

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from sdo_ray.driver.lock import AlreadyRunning, driver_lock
from sdo_ray.storage import RunDirectory


def _hold(directory: str, held: Any, release: Any) -> None:
    with driver_lock(RunDirectory(directory, "cycle")):
        held.set()
        release.wait()


def test_one_driver_at_a_time_and_a_dead_one_makes_room(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path), held, release))
    other.start()
    assert held.wait(60)
    run = RunDirectory(str(tmp_path), "cycle")
    with pytest.raises(AlreadyRunning, match=f"process {other.pid} on "), driver_lock(run):
        pass
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    with driver_lock(run), pytest.raises(AlreadyRunning, match=f"process {os.getpid()} on "), driver_lock(run):
        pass


def test_storage_by_a_file_uri_is_locked_too(tmp_path: Path) -> None:
    with driver_lock(RunDirectory(f"file://{tmp_path}", "run")), pytest.raises(AlreadyRunning):
        driver_lock(RunDirectory(str(tmp_path), "run")).__enter__()


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with driver_lock(run := RunDirectory(str(tmp_path), "run")):
        assert f"{run.uri} cannot be locked (Operation not supported)" in capsys.readouterr().out


def test_two_writers_of_one_file_leave_one_of_theirs(tmp_path: Path) -> None:
    """With one temporary name between them a rename failed in one of twenty writes, and readers saw half a file."""
    run, wrong = RunDirectory(str(tmp_path), "run"), list[object]()
    texts = [letter * 100_000 for letter in "ab"]
    run.write("file", texts[0].encode())

    def write(text: str) -> None:
        try:
            for _ in range(100):
                run.write("file", text.encode())
        except OSError as error:
            wrong.append(error)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if (read := Path(run.place("file")).read_text()) not in texts:
            wrong.append(len(read))
    assert not wrong
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]

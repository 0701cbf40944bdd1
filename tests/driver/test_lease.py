"""One driver at a time where storage has no locks: tickets in a store, here a directory seen as one."""

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from sdo_ray.driver import lease as lease_module
from sdo_ray.driver.lease import TICKETS, AlreadyRunning, holder_of_lease
from sdo_ray.driver.lock import driver_lock, holder
from sdo_ray.storage import RunDirectory
from tests.support.ports import free_port


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(lease_module, "RENEWED", 0.1)
    monkeypatch.setattr(lease_module, "LASTS", 4.0)
    run = RunDirectory(f"local://{tmp_path}", "run")
    assert not run.is_local
    return run


@pytest.mark.slow
def test_an_object_store_will_do(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of S3 are whole seconds."""
    monkeypatch.setattr(lease_module, "RENEWED", 1.5)
    monkeypatch.setattr(lease_module, "LASTS", 6.0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = ThreadedMotoServer("127.0.0.1", free_port())
    server.start()
    try:
        place = f"127.0.0.1:{server._port}"
        query = f"scheme=http&endpoint_override={place}&region=us-east-1&allow_bucket_creation=true"
        stored = RunDirectory(f"s3://bucket?{query}", "run")
        stored.filesystem.create_dir("bucket")
        with driver_lock(stored):
            assert holder(stored) is not None
            with pytest.raises(AlreadyRunning, match="is being worked on by process"), driver_lock(stored):
                pass
        assert holder(stored) is None
        stored.write_json(f"{TICKETS}/dead.json", {"driver": "process 7 on gone"})
        with driver_lock(stored):
            assert holder(stored) != "process 7 on gone"
    finally:
        server.stop()


def tickets(run: RunDirectory) -> list[Path]:
    return sorted(Path(run.path, TICKETS).glob("*.json"))


def test_a_second_driver_is_refused_by_name(run: RunDirectory) -> None:
    with driver_lock(run):
        assert holder(run) == holder_of_lease(run)
        with pytest.raises(AlreadyRunning, match=f"is being worked on by process {os.getpid()} on "), driver_lock(run):
            pass
        assert len(tickets(run)) == 1
    assert not tickets(run)
    assert holder(run) is None


def test_a_ticket_that_is_just_being_written_is_somebodys(run: RunDirectory) -> None:
    run.write(f"{TICKETS}/new.json", b"")
    assert holder(run) == "another driver"


def test_a_dead_drivers_ticket_is_removed(run: RunDirectory) -> None:
    run.write_json(f"{TICKETS}/dead.json", {"driver": "process 7 on gone"})
    began = time.monotonic()
    with driver_lock(run):
        assert time.monotonic() - began >= 4.0
        assert [path.name for path in tickets(run)] != ["dead.json"]
        assert len(tickets(run)) == 1


def test_a_ticket_is_renewed_for_as_long_as_the_block_lasts(run: RunDirectory) -> None:
    with driver_lock(run):
        [ticket] = tickets(run)
        written = ticket.stat().st_mtime_ns
        time.sleep(0.5)
        assert ticket.stat().st_mtime_ns > written


def test_whoever_was_taken_for_dead_is_interrupted(run: RunDirectory) -> None:
    def work() -> None:
        with driver_lock(run):
            tickets(run)[0].unlink()
            time.sleep(10)

    with pytest.raises(AlreadyRunning, match="took this one for dead"):
        work()


def test_of_many_at_once_never_two(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LASTS", 300.0)  # on a busy machine a living one may be late
    inside, most, served, lock = 0, 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most, served
        while True:
            try:
                with driver_lock(run):
                    with lock:
                        inside += 1
                        most = max(most, inside)
                        served += 1
                    time.sleep(0.3)
                    with lock:
                        inside -= 1
                    return
            except AlreadyRunning:
                continue

    workers = [threading.Thread(target=work) for _ in range(4)]
    with ExitStack() as stack:
        for worker in workers:
            worker.start()
            stack.callback(worker.join)
    assert (most, served) == (1, 4)

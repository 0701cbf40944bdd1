"""A server that is away holds nobody up, and misses nothing."""

import threading
import time

import pytest

from sdo_ray.tracking import outbox as outbox_module
from sdo_ray.tracking.outbox import NotSent, Outbox


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "PAUSE", 0.01)
    monkeypatch.setattr(outbox_module, "LONGEST_PAUSE", 0.05)


class Server:
    def __init__(self) -> None:
        self.up, self.has, self.asked = threading.Event(), list[int](), 0

    def take(self, number: int) -> None:
        self.asked += 1
        if not self.up.is_set():
            raise ConnectionError("no route to https://ann:hunter2@mlflow")
        self.has.append(number)


def test_all_arrives_in_order_once_it_is_back_and_it_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server()
    outbox = Outbox("MLflow", server.take)
    began = time.monotonic()
    for number in range(5):
        outbox.put(number)
    assert time.monotonic() - began < 0.5
    while server.asked < 4:
        time.sleep(0.01)
    assert server.has == []
    server.up.set()
    outbox.flush(10)
    assert server.has == [0, 1, 2, 3, 4]
    outbox.close()
    away, back = capsys.readouterr().out.splitlines()
    assert away.startswith("MLflow takes no updates: no route to https://")
    assert "hunter2" not in away
    assert back.startswith("MLflow takes updates again; ")


def test_waiting_ends_with_the_cause() -> None:
    outbox = Outbox("MLflow", Server().take)
    outbox.put(1)
    outbox.put(2)
    with pytest.raises(NotSent, match=r"MLflow did not take 2 updates within 0 s: no route to"):
        outbox.flush(0.3)
    outbox.close()


def test_nothing_more_is_sent_after_it_is_closed() -> None:
    server = Server()
    outbox = Outbox("MLflow", server.take)
    outbox.put(1)
    outbox.close()
    time.sleep(0.1)
    server.up.set()
    time.sleep(0.2)
    assert server.has == []

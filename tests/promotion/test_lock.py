"""The lock in the registry: one holder at a time, whoever dies or is slow."""

import json
import threading
import time
from contextlib import ExitStack
from typing import Any

import mlflow
import pytest

from sdo_ray.promotion import lock
from sdo_ray.promotion.lock import TICKET, LeaseOver, lease, tickets
from tests.support.registry import MODEL


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of seconds rather than minutes."""
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    monkeypatch.setattr(lock, "EVERY", 0.02)


def said_by(said: list[str]) -> Any:
    return lambda line: said.append(line)


def dead(client: mlflow.MlflowClient, seconds: float) -> lock._Ticket:
    """A ticket whose owner holds the lock and never comes back."""
    ticket = lock._Ticket(client, MODEL, "ann", seconds)
    lock._wait(ticket, lock._Watch(print, MODEL), time.monotonic() + 30)
    return ticket


def test_nothing_is_left(client: mlflow.MlflowClient) -> None:
    before = client.get_registered_model(MODEL).tags
    for _ in range(3):
        with lease(client, MODEL, "ann", 30) as held:
            (name,) = tickets(client, MODEL)
            assert name.startswith(TICKET)
            held.check()
        assert client.get_registered_model(MODEL).tags == before


def test_it_is_released_when_the_block_fails(client: mlflow.MlflowClient) -> None:
    with pytest.raises(KeyError), lease(client, MODEL, "ann", 30):
        raise KeyError
    assert tickets(client, MODEL) == {}


def test_models_have_locks_of_their_own(client: mlflow.MlflowClient) -> None:
    client.create_registered_model("other")
    with lease(client, MODEL, "ann", 30), lease(client, "other", "bob", 30):
        assert len(tickets(client, MODEL)) == len(tickets(client, "other")) == 1


def test_one_waits_for_the_other_and_says_so(client: mlflow.MlflowClient) -> None:
    said: list[str] = []
    with ExitStack() as first:
        first.enter_context(lease(client, MODEL, "ann@host", 30))
        threading.Timer(1.0, first.close).start()
        start = time.monotonic()
        with lease(client, MODEL, "bob", 30, said_by(said)):
            assert time.monotonic() - start >= 0.9
    assert said == [
        f"waiting for ann@host, who is changing the champion of {MODEL}; if that does not end, it is taken over in 30 s"
    ]


def test_a_dead_holder_is_taken_over_from(client: mlflow.MlflowClient) -> None:
    said: list[str] = []
    gone = dead(client, 1.5)
    held = lock.Lease(MODEL, gone.until)
    start = time.monotonic()
    with lease(client, MODEL, "bob", 30, said_by(said)):  # it is the dead one's own time that counts
        assert 1.4 <= time.monotonic() - start < 10
        assert said[-1] == "taking over from ann, who did not finish within 2 s"
        # Were it only slow, it finds out before it changes anything, and leaves the other's lock alone.
        with pytest.raises(LeaseOver, match=r"so long that another may have the lock; nothing more was changed"):
            held.check()
        gone.tear_up()
        assert len(tickets(client, MODEL)) == 1
    assert tickets(client, MODEL) == {}


def test_of_many_that_take_over_one_does(client: mlflow.MlflowClient) -> None:
    dead(client, 3)
    inside, most, done = 0, 0, 0

    def work(name: str) -> None:
        nonlocal inside, most, done
        with lease(mlflow.MlflowClient(client.tracking_uri, client.tracking_uri), MODEL, name, 6, said_by([])):
            inside += 1
            most = max(most, inside)
            time.sleep(0.1)
            done += 1
            inside -= 1

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, done) == (1, 4)
    assert tickets(client, MODEL) == {}


def test_one_that_is_being_drawn_is_waited_for(client: mlflow.MlflowClient) -> None:
    """Its owner has read the others' numbers and not yet written its own, which may be as low as ours."""
    drawing = lock._Ticket(client, MODEL, "ann", 30)
    drawing.until = time.monotonic() + 30
    drawing.write()
    threading.Timer(0.6, drawing.tear_up).start()
    start = time.monotonic()
    with lease(client, MODEL, "bob", 30, said_by([])):
        assert time.monotonic() - start >= 0.5


def test_a_waiter_that_was_set_aside_draws_again(client: mlflow.MlflowClient) -> None:
    """Its ticket was taken from the registry while it waited: it does not enter by it."""
    with ExitStack() as first:
        first.enter_context(lease(client, MODEL, "ann", 30))
        mine, entered = lock._Ticket(client, MODEL, "bob", 30), list[float]()

        def wait() -> None:
            lock._wait(mine, lock._Watch(said_by([]), MODEL), time.monotonic() + 60)
            entered.append(time.monotonic())

        waiting = threading.Thread(target=wait)
        waiting.start()
        while mine.name not in tickets(client, MODEL):
            time.sleep(0.02)
        mine.tear_up()
        while mine.name not in tickets(client, MODEL):
            time.sleep(0.02)
        assert not entered
    waiting.join()
    mine.tear_up()
    assert entered


@pytest.mark.parametrize(
    "value",
    ["", "no JSON", "[]", json.dumps({"owner": "x", "seconds": "soon", "number": 1}), json.dumps({"number": 1})],
)
def test_what_is_no_ticket_blocks_nobody(client: mlflow.MlflowClient, value: str) -> None:
    client.set_registered_model_tag(MODEL, f"{TICKET}other", value)
    client.create_registered_model(f"{MODEL}.promotion-lock.999", {"sdo.lock.seconds": "1e9"})  # of an earlier version
    start = time.monotonic()
    with lease(client, MODEL, "bob", 30):
        assert time.monotonic() - start < 5


def test_no_ticket_lasts_for_ever(client: mlflow.MlflowClient) -> None:
    client.set_registered_model_tag(MODEL, f"{TICKET}x", json.dumps({"owner": "x", "seconds": 1e9, "number": 1}))
    assert tickets(client, MODEL)[f"{TICKET}x"].seconds == lock.LONGEST


def test_waiting_ends(client: mlflow.MlflowClient) -> None:
    dead(client, 30)
    with (
        pytest.raises(LeaseOver, match=f"{MODEL}: waited 8 s for the lock, which others kept taking"),
        lease(client, MODEL, "bob", 0.8, said_by([])),
    ):
        pass

"""The lock in the registry: one holder at a time, whoever dies or is slow."""

import threading
import time
from contextlib import ExitStack
from typing import Any

import mlflow
import pytest

from sdo_ray.promotion import lock
from sdo_ray.promotion.lock import LAST, LeaseOver, lease
from tests.support.registry import MODEL


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of seconds rather than minutes."""
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    monkeypatch.setattr(lock, "EVERY", 0.02)


def records(client: mlflow.MlflowClient) -> list[str]:
    return [model.name for model in client.search_registered_models() if "lock" in model.name]


def said_by(said: list[str]) -> Any:
    return lambda line: said.append(line)


def test_nothing_is_left_but_a_number_that_rises(client: mlflow.MlflowClient) -> None:
    for number in (1, 2, 3):
        with lease(client, MODEL, "ann", 30) as held:
            assert held.number == number
            assert records(client) == [f"{MODEL}.promotion-lock.{number}"]
            held.check()
        assert records(client) == []
        assert client.get_registered_model(MODEL).tags[LAST] == str(number)


def test_it_is_released_when_the_block_fails(client: mlflow.MlflowClient) -> None:
    with pytest.raises(KeyError), lease(client, MODEL, "ann", 30):
        raise KeyError
    assert records(client) == []


def test_models_have_locks_of_their_own(client: mlflow.MlflowClient) -> None:
    client.create_registered_model(f"{MODEL}.promotion-lock.other")
    client.create_registered_model("other")
    with lease(client, MODEL, "ann", 30) as one, lease(client, "other", "bob", 30) as two:
        assert (one.number, two.number) == (1, 1)


def test_one_waits_for_the_other_and_says_so(client: mlflow.MlflowClient) -> None:
    said: list[str] = []
    with ExitStack() as first:
        first.enter_context(lease(client, MODEL, "ann@host", 30))
        threading.Timer(1.0, first.close).start()
        start = time.monotonic()
        with lease(client, MODEL, "bob", 30, said_by(said)) as second:
            assert second.number == 2
            assert time.monotonic() - start >= 0.9
    assert said == [
        f"waiting for ann@host, who is changing the champion of {MODEL}; if that does not end, it is taken over in 30 s"
    ]


def test_a_dead_holder_is_taken_over_from(client: mlflow.MlflowClient) -> None:
    said: list[str] = []
    dead = lock._acquire(client, MODEL, "ann", 1.5, print)
    start = time.monotonic()
    with lease(client, MODEL, "bob", 30, said_by(said)) as second:  # it is the dead one's own time that counts
        assert 1.5 <= time.monotonic() - start < 10
        assert second.number == dead.number + 1
        assert said[-1] == "taking over from ann, who did not finish within 2 s"
        # Were it only slow, it finds out before it changes anything, and leaves the other's lock alone.
        with pytest.raises(LeaseOver, match=r"so long that another may have the lock; nothing more was changed"):
            dead.check()
        lock._release(client, dead)
        assert len(records(client)) == 2
    assert records(client) == []


def test_of_many_that_take_over_one_does(client: mlflow.MlflowClient) -> None:
    lock._acquire(client, MODEL, "dead", 3, print)
    inside, most, order = 0, 0, []

    def work(name: str) -> None:
        nonlocal inside, most
        with lease(mlflow.MlflowClient(client.tracking_uri, client.tracking_uri), MODEL, name, 3, said_by([])) as held:
            inside += 1
            most = max(most, inside)
            time.sleep(0.1)
            order.append(held.number)
            inside -= 1

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert order == sorted(set(order))
    assert len(order) == 4


def test_what_was_read_too_early_is_noticed(client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter reads that lease 1 is the last; before it creates number 2, that one has come and gone."""
    with lease(client, MODEL, "ann", 30):
        pass
    create, interrupted = lock._create, []

    def late(client: mlflow.MlflowClient, model: str, number: int, *rest: Any) -> bool:
        if not interrupted:
            interrupted.append(number)
            with lease(client, MODEL, "bob", 30) as second:
                assert second.number == 2
        return create(client, model, number, *rest)

    monkeypatch.setattr(lock, "_create", late)
    with lease(client, MODEL, "ann", 30) as third:
        assert interrupted == [2]
        assert third.number == 3
        assert records(client) == [f"{MODEL}.promotion-lock.3"]


def test_a_lost_answer_does_not_lose_the_lock(client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server creates the record, the answer is lost, and MLflow's client asks again."""
    create = client.create_registered_model

    def twice(*arguments: Any) -> Any:
        create(*arguments)
        return create(*arguments)

    monkeypatch.setattr(client, "create_registered_model", twice)
    with lease(client, MODEL, "ann", 30) as held:
        assert held.number == 1


def test_waiting_ends(client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lock._acquire(client, MODEL, "ann", 0.3, print)
    monkeypatch.setattr(lock._Watch, "is_over", lambda *_: False)
    with (
        pytest.raises(LeaseOver, match=f"{MODEL}: waited 3 s for the lock, which others kept taking"),
        lease(client, MODEL, "bob", 0.3, said_by([])),
    ):
        pass

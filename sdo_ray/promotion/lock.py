"""One promotion at a time: a lease that lives in the registry itself, so that it holds between machines.

MLflow moves an alias unconditionally: two promoters that both found the same champion would both move it, and the one
would undo the other unseen. What its server does decide atomically is who creates a registered model of a given name,
for names are unique. So whoever creates the model `NAME.promotion-lock.G` holds lease number G.

- G is one more than the last lease that is over: released (the tag `sdo.lock` of NAME says how many were) or run out.
- A holder may have died, so a lease runs out. Clocks of machines differ, so nobody compares them: a waiter takes over
  once it has itself seen the same lease for as long as that one lasts, and its holder counts from before it asked.
- Who created G looks again: were it to find a later lease, or G released, what it had read was out of date, and it
  starts anew. Numbers only rise, so of two leases one is over.

The holder asks `Lease.check` before every change. What a request does that left in time and arrives after the lease ran
out, no client can help; so the time a request may take is kept free at the end of the lease.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sdo_ray.tracking.server import PATIENCE

if TYPE_CHECKING:
    from mlflow import MlflowClient

LAST = "sdo.lock"
"""Tag of the registered model: the number of its last released lease."""

OWNER, SECONDS, TOKEN = "sdo.lock.owner", "sdo.lock.seconds", "sdo.lock.token"
"""Tags of a lease's record: who, in words; for how long; and one attempt of theirs, which nobody else writes."""

EVERY = 0.5
"""Seconds between two looks at a lease that is waited for."""


class LeaseOver(RuntimeError):
    """The holder took longer than its lease, or waited too long for one.

    Attributes:
        model: the registered model's name.
        what: what happened, in words.
    """

    def __init__(self, model: str, what: str) -> None:
        super().__init__(model, what)
        self.model, self.what = model, what

    def __str__(self) -> str:
        return f"{self.model}: {self.what}"


@dataclass(frozen=True)
class Lease:
    """The right to change a model's aliases, for some time."""

    model: str
    """The registered model's name."""
    number: int
    """It rises with every lease of this model."""
    until: float
    """When it runs out, on `time.monotonic`'s clock."""

    @property
    def is_over(self) -> bool:
        """Whether there is no time left for one more change."""
        return time.monotonic() > self.until - PATIENCE

    def check(self) -> None:
        """Raise `LeaseOver` if there is none."""
        if self.is_over:
            raise LeaseOver(self.model, "this took so long that another may have the lock; nothing more was changed")


@contextmanager
def lease(
    client: MlflowClient, model: str, owner: str, seconds: float, say: Callable[[str], None] = print
) -> Iterator[Lease]:
    """Hold the lock of a registered model inside the block; wait for it if another does.

    Args:
        client: of the MLflow server.
        model: the registered model's name.
        owner: who asks, in words, for those who wait.
        seconds: how long the lease lasts; more than `PATIENCE`.
        say: gets a line for everything that is waited for or taken over.

    Raises:
        LeaseOver: it was not to be had in ten times `seconds`.
    """
    held = _acquire(client, model, owner, seconds, say)
    try:
        yield held
    finally:
        _release(client, held)


def _acquire(client: MlflowClient, model: str, owner: str, seconds: float, say: Callable[[str], None]) -> Lease:
    watch = _Watch(say, model)
    give_up = time.monotonic() + 10 * seconds
    while time.monotonic() < give_up:
        records = _records(client, model)
        newest = max(records, default=0)
        if newest > _last(client, model) and not watch.is_over(newest, records[newest]):
            time.sleep(EVERY)
            continue
        start, number = time.monotonic(), max(newest, _last(client, model)) + 1
        if _create(client, model, number, owner, seconds):
            if number == max(_records(client, model), default=0) and number > _last(client, model):
                return Lease(model, number, start + seconds)
            _delete(client, _name(model, number))
    raise LeaseOver(model, f"waited {10 * seconds:.0f} s for the lock, which others kept taking; try again later")


def _release(client: MlflowClient, held: Lease) -> None:
    """Say that this lease is over, and clear away its record and those of earlier ones that were not released."""
    if held.is_over:
        return  # others take over, or did
    client.set_registered_model_tag(held.model, LAST, str(held.number))
    for number in _records(client, held.model):
        if number <= held.number:
            _delete(client, _name(held.model, number))


@dataclass(frozen=True)
class _Record:
    """What the registry knows of a lease."""

    owner: str
    seconds: float


@dataclass
class _Watch:
    """What a waiter has seen, by its own clock."""

    say: Callable[[str], None]
    model: str
    seen: dict[int, float] = field(default_factory=dict)

    def is_over(self, number: int, record: _Record) -> bool:
        """Whether the lease `number` has run out."""
        now = time.monotonic()
        if number not in self.seen:
            self.seen[number] = now
            self.say(
                f"waiting for {record.owner}, who is changing the champion of {self.model}; if that does not end, it "
                f"is taken over in {record.seconds:.0f} s"
            )
        if now - self.seen[number] <= record.seconds:
            return False
        self.say(f"taking over from {record.owner}, who did not finish within {record.seconds:.0f} s")
        return True


def _name(model: str, number: int) -> str:
    return f"{model}.promotion-lock.{number}"


def _records(client: MlflowClient, model: str) -> dict[int, _Record]:
    """Every lease that has a record, by number."""
    prefix = _name(model, 0)[:-1]
    found = client.search_registered_models(f"name LIKE '{prefix}%'", max_results=1000)
    return {
        int(number): _Record(record.tags[OWNER], float(record.tags[SECONDS]))
        for record in found
        if record.name.startswith(prefix)
        and (number := record.name.removeprefix(prefix)).isdigit()
        and TOKEN in record.tags
    }


def _last(client: MlflowClient, model: str) -> int:
    return int(client.get_registered_model(model).tags.get(LAST, 0))


def _create(client: MlflowClient, model: str, number: int, owner: str, seconds: float) -> bool:
    """Whether the record could be created; the server lets one succeed."""
    from mlflow.exceptions import MlflowException

    token = uuid.uuid4().hex
    about = f"Lock of `sdo promote` for {model}; it goes when the promotion is done."
    try:
        tags = {OWNER: owner, SECONDS: str(seconds), TOKEN: token}
        client.create_registered_model(_name(model, number), tags, about)
        return True
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # The client asks again when an answer is lost: then it exists because we created it.
    try:
        return bool(client.get_registered_model(_name(model, number)).tags.get(TOKEN) == token)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def _delete(client: MlflowClient, name: str) -> None:
    """Delete a record, unless another did, or it is another user's; a number that was released counts for nothing."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED"):
            raise

"""One promotion at a time: a lease that lives in the registry itself, so that it holds between machines.

MLflow moves an alias unconditionally: two promoters that both found the same champion would both move it, and the one
would undo the other unseen. Its server has no operation that only one of two may do, but each can write a tag of its
own on the registered model, and read those of all at once. That is enough (Lamport's bakery, 1974): draw a ticket with
a number above all others, and wait until every other is gone or higher. Writing a tag takes the right to change the
model, so an account without it can neither hold nor block the lock.

- A holder may have died, so a ticket runs out. Clocks of machines differ, so nobody compares them: a waiter sets a
  ticket aside once it has itself seen it unchanged for as long as that ticket says. Its owner counts from before it
  wrote it, and writes it anew while it waits and when its turn comes.
- Whoever finds that its own ticket may have been set aside draws another or, if it holds the lock, ends.

The holder asks `Lease.check` before every change. What a request does that left in time and arrives after the lease ran
out, no client can help; so the time a request may take is kept free at the end of the lease.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sdo_ray.tracking.server import PATIENCE

if TYPE_CHECKING:
    from mlflow import MlflowClient

TICKET = "sdo.lock."
"""What the names of the tags start with."""

EVERY = 0.5
"""Seconds between two looks at a lease that is waited for."""

LONGEST = 600.0
"""Seconds that a ticket may last, whatever it says."""


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
    until: float
    """When it runs out, on `time.monotonic`'s clock."""

    def check(self) -> None:
        """Raise `LeaseOver` if there is no time left for one more change."""
        if time.monotonic() > self.until - PATIENCE:
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
        seconds: how long the lease lasts; more than `PATIENCE`, at most `LONGEST`.
        say: gets a line for everything that is waited for or taken over.

    Raises:
        LeaseOver: it was not to be had in ten times `seconds`.
    """
    mine = _Ticket(client, model, owner, seconds)
    try:
        yield _wait(mine, _Watch(say, model), give_up=time.monotonic() + 10 * seconds)
    finally:
        mine.tear_up()


@dataclass(frozen=True)
class _Known:
    """A ticket as the registry shows it."""

    owner: str
    seconds: float
    number: int | None
    """None while it is drawn: it may become lower than one that is drawn later."""
    text: str
    """The tag's value."""


@dataclass
class _Ticket:
    """One's own."""

    client: MlflowClient
    model: str
    owner: str
    seconds: float
    number: int | None = None
    until: float = 0.0
    """When another may set it aside, on `time.monotonic`'s clock; before the first writing, it is not there."""
    is_written: bool = False
    name: str = field(default_factory=lambda: TICKET + uuid.uuid4().hex)

    def draw(self) -> None:
        """Write that it is being drawn, look at all others, and write a number above theirs."""
        self.number, self.until = None, time.monotonic() + self.seconds
        self.write()
        numbers = [known.number for known in tickets(self.client, self.model).values() if known.number is not None]
        self.number = max(numbers, default=0) + 1
        self.write()

    def write(self) -> None:
        """Write it as it is now, which begins its time anew."""
        begin = time.monotonic()
        shown = {"owner": self.owner, "seconds": self.seconds, "number": self.number, "turn": uuid.uuid4().hex[:8]}
        self.client.set_registered_model_tag(self.model, self.name, json.dumps(shown))
        self.is_written = True
        if time.monotonic() <= self.until:  # else others may have set it aside before it arrived
            self.until = begin + self.seconds

    def may_be_gone(self, there: Mapping[str, _Known]) -> bool:
        """Whether another has set it aside, or may do so before the next request arrives."""
        return self.name not in there or time.monotonic() > self.until - PATIENCE

    def tear_up(self) -> None:
        """Take it away; nothing happens if another has, or it could not be written."""
        if self.is_written:
            self.client.delete_registered_model_tag(self.model, self.name)


@dataclass
class _Watch:
    """What a waiter has seen, by its own clock."""

    say: Callable[[str], None]
    model: str
    seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Name of a ticket -> its text, and since when it has been that."""
    said: set[str] = field(default_factory=set)

    def is_over(self, name: str, known: _Known) -> bool:
        """Whether the ticket has run out."""
        now = time.monotonic()
        if self.seen.get(name, ("", 0.0))[0] != known.text:
            self.seen[name] = known.text, now
        if name not in self.said:
            self.said.add(name)
            self.say(
                f"waiting for {known.owner}, who is changing the champion of {self.model}; if that does not end, it "
                f"is taken over in {known.seconds:.0f} s"
            )
        if now - self.seen[name][1] <= known.seconds:
            return False
        self.say(f"taking over from {known.owner}, who did not finish within {known.seconds:.0f} s")
        return True


def _wait(mine: _Ticket, watch: _Watch, give_up: float) -> Lease:
    mine.draw()
    while time.monotonic() < give_up:
        there = tickets(mine.client, mine.model)
        if mine.may_be_gone(there):
            time.sleep(EVERY)
            mine.draw()
            continue
        before = {name: known for name, known in there.items() if name != mine.name and _is_before(name, known, mine)}
        over = [name for name, known in before.items() if watch.is_over(name, known)]
        for name in over:
            mine.client.delete_registered_model_tag(mine.model, name)
        if len(over) == len(before):
            mine.write()
            if not mine.may_be_gone(tickets(mine.client, mine.model)):
                return Lease(mine.model, mine.until)
        elif not over:
            if time.monotonic() > mine.until - mine.seconds / 2:
                mine.write()
            time.sleep(EVERY)
    raise LeaseOver(
        mine.model, f"waited {10 * mine.seconds:.0f} s for the lock, which others kept taking; try again later"
    )


def _is_before(name: str, known: _Known, mine: _Ticket) -> bool:
    assert mine.number is not None
    return known.number is None or (known.number, name) < (mine.number, mine.name)


def tickets(client: MlflowClient, model: str) -> dict[str, _Known]:
    """Every ticket of a registered model by name; what is none is not read."""
    found = {}
    for name, text in client.get_registered_model(model).tags.items():
        if name.startswith(TICKET):
            try:
                shown = json.loads(text)
                number = shown["number"]
                seconds = min(float(shown["seconds"]), LONGEST)
                found[name] = _Known(str(shown["owner"]), seconds, None if number is None else int(number), text)
            except (ValueError, TypeError, KeyError):
                continue
    return found

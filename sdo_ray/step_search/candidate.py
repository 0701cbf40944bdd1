"""One way to hold steps, as what evolution changes in it.

Genes, of N steps: which modules are held (one of several ways), the order by which they are continued, and which steps
are computed. The first step always is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdo_ray.cheap_steps.settings import CacheSettings

REGULAR = (2, 3, 4, 5)
"""Intervals that evolution starts from, as who searches nothing would choose them."""


@dataclass(frozen=True, order=True)
class Candidate:
    """One way."""

    hold: int
    """Number of the way to hold."""
    order: int
    """Degree of the continuation, 0 or more."""
    steps: tuple[int, ...]
    """The steps that are computed, ascending, 0 among them."""


@dataclass(frozen=True)
class Genes:
    """What may be chosen.

    Args:
        holds: ways to hold, of ours; their schedules do not count.
        orders: degrees of the continuation.
        num_steps: N, 2 or more.
    """

    holds: Sequence[CacheSettings]
    orders: Sequence[int]
    num_steps: int

    def cache(self, candidate: Candidate) -> CacheSettings:
        """The candidate as `sampling.cache`."""
        genes = {"order": candidate.order, "steps": list(candidate.steps), "of": self.num_steps}
        fixed = self.holds[candidate.hold].model_dump(include={"name", "modules"})
        return CacheSettings.model_validate(fixed | genes)

    def regular(self, hold: int, order: int, every: int) -> Candidate:
        """Every so many steps, and the last."""
        return Candidate(hold, order, self._with_first({*range(0, self.num_steps, every), self.num_steps - 1}))

    def first(self, count: int, draw: random.Random) -> list[Candidate]:
        """Different ones to start from: the regular ones, then drawn ones."""
        found = [
            self.regular(hold, order, every)
            for every in REGULAR
            for hold in range(len(self.holds))
            for order in self.orders
            if every < self.num_steps
        ]
        found = list(dict.fromkeys(found))
        draw.shuffle(found)
        for _ in range(50 * count):
            if len(found) >= count:
                break
            if (drawn := self._drawn(draw)) not in found:
                found.append(drawn)
        return found[:count]

    def child(self, mother: Candidate, father: Candidate, draw: random.Random) -> Candidate:
        """The steps of one parent up to a step, then those of the other; one gene changed."""
        cut = draw.randrange(self.num_steps + 1)
        steps = {step for step in mother.steps if step < cut} | {step for step in father.steps if step >= cut}
        hold, order = (draw.choice((mother, father)).hold, draw.choice((mother, father)).order)
        return self._changed(Candidate(hold, order, self._with_first(steps)), draw)

    def _changed(self, candidate: Candidate, draw: random.Random) -> Candidate:
        kinds = ["add", "remove", "move", "order", "hold"]
        match draw.choices(kinds, weights=[2, 2, 4, 1, 1 if len(self.holds) > 1 else 0])[0]:
            case "order":
                return replace(candidate, order=draw.choice(self.orders))
            case "hold":
                return replace(candidate, hold=draw.randrange(len(self.holds)))
            case kind:
                steps, others = set(candidate.steps[1:]), set(range(1, self.num_steps)) - set(candidate.steps)
                if kind != "add" and steps:
                    gone = draw.choice(sorted(steps))
                    steps.remove(gone)
                    if kind == "move":
                        steps.add(min(max(1, gone + draw.choice((-1, 1))), self.num_steps - 1))
                elif kind == "add" and others:
                    steps.add(draw.choice(sorted(others)))
                return replace(candidate, steps=self._with_first(steps))

    def _drawn(self, draw: random.Random) -> Candidate:
        share = draw.uniform(0.15, 0.8)
        steps = {step for step in range(1, self.num_steps) if draw.random() < share}
        return Candidate(draw.randrange(len(self.holds)), draw.choice(self.orders), self._with_first(steps))

    @staticmethod
    def _with_first(steps: set[int]) -> tuple[int, ...]:
        return tuple(sorted(steps | {0}))

"""Who watches updates, and what comes of it."""

from sdo_ray.training.decisions import Abort, Continue, Decider, Decision, RollBack, Stop
from sdo_ray.training.records import UpdateReport
from tests.support.updates import report


class Fixed:
    """Decides the same of every update, and remembers what it saw."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.seen: list[int] = []

    def observe(self, report: UpdateReport) -> Decision:
        self.seen.append(report.update)
        return self.decision


def test_everybody_sees_an_update_and_the_gravest_decision_counts() -> None:
    order = [Continue(), Stop("a"), Stop("b"), RollBack(3, "worse"), Abort("broken")]
    observers = [Fixed(decision) for decision in order]
    assert Decider(observers).decide(report(7)) == Abort("broken")
    assert [observer.seen for observer in observers] == [[7]] * 5
    assert Decider(observers[:4]).decide(report(8)) == RollBack(3, "worse")
    assert Decider(observers[:3]).decide(report(9)) == Stop("a")
    assert Decider(observers[:1]).decide(report(9)) == Continue()


def test_nobody_watching_goes_on() -> None:
    assert Decider([]).decide(report(0)) == Continue()


def test_what_is_decided_stays_and_everybody_goes_on_seeing_updates() -> None:
    """A run that has what its rewards ask for does not fail by what trainers make until they hear of it."""
    observer = Fixed(Continue())
    decider = Decider([observer])
    assert decider.decide(report(0)) == Continue()
    for observer.decision, decided in (
        (Stop("enough"), Stop("enough")),
        (Stop("still enough"), Continue()),
        (Abort("nothing came"), Continue()),
    ):
        assert decider.decide(report(len(observer.seen))) == decided
    assert observer.seen == [0, 1, 2, 3]

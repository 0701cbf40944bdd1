"""Who watches updates, and what comes of it."""

from sdo_ray.training.decisions import Abort, Continue, Decision, RollBack, Stop, decide
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
    assert decide(observers, report(7)) == Abort("broken")
    assert [observer.seen for observer in observers] == [[7]] * 5
    assert decide(observers[:4], report(8)) == RollBack(3, "worse")
    assert decide(observers[:3], report(9)) == Stop("a")
    assert decide(observers[:1], report(9)) == Continue()


def test_nobody_watching_goes_on() -> None:
    assert decide([], report(0)) == Continue()

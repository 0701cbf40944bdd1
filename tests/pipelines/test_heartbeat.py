"""What is said while nothing happens."""

import time

import pytest

from pipelines import heartbeat
from pipelines.heartbeat import Heartbeat
from tests.support.updates import report


def test_it_speaks_after_a_silence_and_then_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    news = ["reward 'ink' died while it scored"]
    waiting = {"sampler 2 at update 3": 31.0, "reward ink to score 2 images ('a', 'b')": 40.4}

    def look() -> heartbeat.Look:
        told, news[:] = list(news), []
        return waiting, told

    beats = Heartbeat(look)
    said = {}
    for now in range(1000):
        if now == 700:
            beats.observe(report(0))
        if lines := beats.beat():
            said[now] = lines
    assert said[0] == ["reward 'ink' died while it scored"]
    first = "reward ink to score 2 images ('a', 'b') (40 s); sampler 2 at update 3 (31 s)"
    assert said[30] == [f"waiting since 30 s: {first}"]
    assert list(said) == [0, 30, 60, 120, 240, 480, 730, 760, 820, 940]
    waiting |= {f"sampler {number} at update 3": 1.0 for number in range(10, 15)}
    now = 3000.0
    assert beats.beat()[0].endswith("; sampler 10 at update 3 (1 s); sampler 11 at update 3 (1 s); 3 more")
    waiting.clear()
    now = 9000.0
    assert beats.beat() == ["waiting since 8300 s for the trainers, and for samplers to start"]

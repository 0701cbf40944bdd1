"""The line of each update."""

import time

from pipelines.progress import Progress
from sdo_ray.training.records import Spread, UpdateReport


def report(update: int, mean: float | None, skipped: int = 0, splits: int = 0) -> UpdateReport:
    reward = Spread(mean, 0.0)
    seconds = {"update": 1.0}
    return UpdateReport(update, reward, {"a": reward}, 1.0, {}, 1.0, 8, skipped, seconds, num_splits=splits)


def test_reward_so_far_and_time_left(monkeypatch) -> None:
    clock = iter([100.0, 160.0, 170.0, 180.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    lines = Progress(updates=400)
    first = lines.line(report(0, 0.5))
    assert first.startswith("update   1/400  reward 0.5 (from 0.50)")
    assert "60.0 s" in first
    second = lines.line(report(1, 0.75))
    assert "reward 0.75 (from 0.50)  a 0.75  lag 1" in second
    # The first update, which waited for the start, is not what the rest will take: 398 times 10 s.
    assert "left 1:06:20" in second
    assert "SKIPPED" not in second
    assert lines.line(report(2, 0.75, skipped=3, splits=2)).endswith("  3 SKIPPED  2 SPLIT, for memory")


def test_an_update_in_which_no_sample_counts() -> None:
    assert "reward none" in Progress(updates=2).line(report(0, None, skipped=8))

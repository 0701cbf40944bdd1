"""A long run whose processes are killed all the time ends as one that nobody disturbs.

`pytest -s -m slow tests/pipelines/test_monkey.py` prints what each death cost.
"""

import itertools
import re
import statistics
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from tests.support.runs import AlignProcess, final_adapter, tiny_settings

UPDATES = 200
EVERY = 60.0
"""Seconds between two kills."""
VICTIMS = {
    "sampler": "MapWorker(MapBatches(Sampler))",
    "reward": "RewardActor",
    "trainer": "RayTrainWorker",
    "policy store": "PolicyStore",
}
"""What is killed -> what its processes are called."""
TURNS = ("sampler", "reward", "trainer", "policy store", "sampler", "trainer")


class Run:
    """An alignment whose updates take some two seconds, most of them asleep in a reward; read by a thread."""

    def __init__(self, directory: Path, base: Path) -> None:
        directory.mkdir()
        ink = {"name": "tests.support.ink:Ink", "weight": 1.0, "options": {"seconds": 0.5}}
        settings = tiny_settings(
            directory,
            base,
            rewards={"terms": [ink]},
            training={"updates": UPDATES, "checkpoint_every": 5},
            trainers={"max_failures": 1000},
            tracking={"preview_prompts": []},
        )
        self.directory = directory
        self.process = AlignProcess(str(settings))
        self.made: list[float] = []
        """When each update was said to be made."""
        self._read = threading.Thread(target=self._follow)
        self._read.start()

    def _follow(self) -> None:
        for line in self.process.lines():
            if re.match(r"update +\d+/", line):
                self.made.append(time.monotonic())

    def is_training(self) -> bool:
        if not self._read.is_alive() and len(self.made) < UPDATES:
            raise AssertionError("".join(self.process.output))
        return len(self.made) < UPDATES

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.is_training() and time.monotonic() < until:
            time.sleep(0.2)

    def kill(self, title: str) -> None:
        """Kill one of the processes of that title, once there is one: what was killed last may be starting again."""
        while self.is_training() and not any(title in line for line in self.process.running()):
            self.wait(1.0)
        if self.is_training():
            self.process.kill(title)

    def finish(self) -> dict[str, torch.Tensor]:
        self._read.join()
        self.process.finish()
        assert len(self.made) == UPDATES
        return final_adapter(self.directory)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_same_adapter_in_at_most_twice_the_time(tiny_base: Path, tmp_path: Path) -> None:
    """Both runs at once, so that what else the machine does slows both."""
    calm, disturbed, kills = Run(tmp_path / "calm", tiny_base), Run(tmp_path / "disturbed", tiny_base), []
    with calm.process, disturbed.process:
        while not disturbed.made:
            disturbed.wait(1.0)
        for victim in itertools.cycle(TURNS):
            disturbed.wait(EVERY)
            if not disturbed.is_training():
                break
            disturbed.kill(VICTIMS[victim])
            kills.append((victim, time.monotonic()))
        found, expected = disturbed.finish(), calm.finish()
    took, undisturbed = (run.made[-1] - run.made[0] for run in (disturbed, calm))
    usual = statistics.median(later - earlier for earlier, later in itertools.pairwise(disturbed.made))
    costs = defaultdict(list)
    for (victim, killed), (_, before_next) in itertools.pairwise([*kills, ("", disturbed.made[-1])]):
        waits = [
            later - earlier
            for earlier, later in itertools.pairwise(disturbed.made)
            if killed <= later and earlier <= before_next
        ]
        costs[victim].append(max(waits) - usual)
    print(f"\n{len(kills)} kills; {took:.0f} s, {undisturbed:.0f} s undisturbed; an update {usual:.1f} s")
    for victim, each in costs.items():
        print(f"{victim}: {len(each)} deaths, longest wait beyond that {statistics.median(each):.1f} s (median)")
    assert len(kills) >= len(TURNS)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert took <= 2 * undisturbed

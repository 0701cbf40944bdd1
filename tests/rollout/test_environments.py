"""Rewards with packages that exclude one another in one run: each has its own in its actor, gradients come back."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import ray
import torch

from sdo_ray.rollout.reward_client import RewardClient, start_reward_actors
from sdo_ray.rollout.reward_settings import RewardSettings

VERSIONS = {"old": "0.4.0", "new": "0.5.1"}
GAINS = {"old": 40.0, "new": 51.0}


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def term(key: str, folder: Path) -> RewardSettings:
    (folder / f"{key}.txt").write_text(f"inflection=={VERSIONS[key]}\n")
    return RewardSettings(
        name="tests.support.versioned:Versioned",
        label=key,
        options={"dies_at": str(folder / f"{key}-dies")},
        runtime_env={"pip": str(folder / f"{key}.txt")},
        num_cpus=0.5,
    )


@pytest.mark.slow
def test_two_versions_of_a_package_and_one_reward_killed(cluster: None, tmp_path: Path) -> None:
    assert find_spec("inflection") is None  # where the job runs there is neither
    handles = start_reward_actors([term(key, tmp_path) for key in VERSIONS])
    client = RewardClient(handles, list(VERSIONS))
    images = torch.rand(3, 3, 8, 8)

    def check() -> None:
        scores, gradients = client(images, ["a", "b", "c"])
        for key, gain in GAINS.items():
            gradient = gradients[key]
            assert gradient is not None
            torch.testing.assert_close(scores[key], gain * images.mean((1, 2, 3)))
            torch.testing.assert_close(gradient, torch.full_like(images, gain / images[0].numel()))

    check()
    (tmp_path / "old-dies").touch()
    check()
    assert not (tmp_path / "old-dies").exists()  # it did die, and another in the same environment answered

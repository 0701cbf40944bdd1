"""Rewards with packages that exclude one another in one run: each has its own in its actor, gradients come back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
import transformers

from rewards.scoring import score_with_gradient
from sdo_ray.rollout.reward_client import RewardClient, start_reward_actors
from sdo_ray.rollout.reward_settings import RewardSettings
from tests.support.versioned import Versioned

VERSIONS = {"old": "4.57.6", "new": transformers.__version__}
"""The older one takes no tokenizers and no huggingface_hub that the newer one takes, and the other way round."""


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def term(key: str, folder: Path) -> RewardSettings:
    (folder / f"{key}.txt").write_text(f"transformers=={VERSIONS[key]}\n")
    return RewardSettings(
        name="tests.support.versioned:Versioned",
        label=key,
        options={"dies_at": str(folder / f"{key}-dies")},
        runtime_env={"pip": str(folder / f"{key}.txt")},
        num_cpus=0.5,
    )


@pytest.mark.slow
def test_two_versions_of_a_package_and_one_reward_killed(cluster: None, tmp_path: Path) -> None:
    handles = start_reward_actors([term(key, tmp_path) for key in VERSIONS])
    client = RewardClient(handles, list(VERSIONS))
    images, here = torch.rand(3, 3, 8, 8), Versioned(dies_at=tmp_path / "never")
    expected, slopes = score_with_gradient(here, images, ["a", "b", "c"])
    assert slopes is not None

    def check() -> None:
        scores, gradients = client(images, ["a", "b", "c"])
        for key, version in (("old", 4), ("new", here.version)):
            gradient = gradients[key]
            assert gradient is not None
            torch.testing.assert_close(scores[key], version / here.version * expected)
            torch.testing.assert_close(gradient, version / here.version * slopes, rtol=1e-4, atol=1e-6)

    assert here.version > 4
    check()
    (tmp_path / "old-dies").touch()
    check()
    assert not (tmp_path / "old-dies").exists()  # it did die, and another in the same environment answered

"""Rewards that share an actor, asked as all others are, on a real cluster."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from rewards.towers.pixels import luma
from sdo_ray.rollout.reward_client import RewardClient, reward_provenance, reward_specs, start_reward_actors
from sdo_ray.rollout.reward_settings import RewardSettings
from sdo_ray.settings import SettingsError
from tests.rewards.tiny.cases import CASES

ON_CLIP = ("clip_score", "aesthetic_v1", "image_similarity")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


def term(name: str, folder: Path, **changes: Any) -> RewardSettings:
    options = {key: str(value) for key, value in CASES[name].options(folder / name).items()}
    return RewardSettings(name=name, num_cpus=0.25, options=options, **changes)


def test_scores_and_gradients_are_those_of_actors_of_their_own(tmp_path: Path) -> None:
    for name in ON_CLIP:
        (tmp_path / name).mkdir()
    apart = [term(name, tmp_path) for name in ON_CLIP]
    source = {"source": apart[0].options["source"]}
    apart = [reward.model_copy(update={"options": reward.options | source}) for reward in apart]
    together = [reward.model_copy(update={"share": "clip"}) for reward in apart]
    together.append(RewardSettings(name="brightness", num_cpus=0.25))
    images, prompts = torch.rand(3, 3, 20, 24, generator=torch.Generator().manual_seed(0)), ["a cat", "dogs", "x"]
    handles = start_reward_actors(together)
    assert [handle.group for handle in handles.values()] == [" and ".join(ON_CLIP)] * 3 + ["brightness"]
    expected, slopes = RewardClient(start_reward_actors(apart), ON_CLIP[:2])(images, prompts)
    scores, gradients = map(dict, RewardClient(handles, [*ON_CLIP[:2], "brightness"])(images, prompts))
    torch.testing.assert_close(scores.pop("brightness"), luma(images).mean((1, 2)))
    assert gradients.pop("brightness") is not None
    assert gradients["image_similarity"] is slopes["image_similarity"] is None
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)
    for name in ON_CLIP[:2]:
        torch.testing.assert_close(gradients[name], slopes[name], rtol=1e-4, atol=1e-7)
    assert reward_specs(handles)["aesthetic_v1"].licence == "MIT"
    assert {"reward.clip_score", "reward.aesthetic_v1.sources"} <= reward_provenance(handles).keys()


def test_one_without_a_network_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "clip_score").mkdir()
    lone = RewardSettings(name="brightness", num_cpus=0.25, share="clip")
    with pytest.raises(SettingsError, match="brightness rests on none that can be shared"):
        start_reward_actors([term("clip_score", tmp_path, share="clip"), lone])

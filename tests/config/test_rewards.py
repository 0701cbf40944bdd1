"""What is wrong with rewards is said of their settings."""

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from rewards.registry import RewardError, check
from sdo_ray.cluster import Demand
from sdo_ray.config.rewards import check_rewards, reward_demands
from sdo_ray.rollout.reward_settings import RewardActorSettings, RewardSettings
from sdo_ray.settings import SettingsError

GOOD = {"name": "jpeg_compressibility"}


@pytest.mark.parametrize(
    ("reward", "setting"),
    [
        ({"name": "nothing"}, "1.name"),
        ({"name": "no.module:Thing"}, "1.name"),
        ({"name": "layout", "options": {"towards": 3}}, "1.options.towards"),
        ({"name": "layout", "options": {"away": "top"}}, "1.options.away"),
        ({"name": "gram_style"}, "1.options"),
        ({"name": "classification", "options": {"classes": ["one"]}}, "1"),
    ],
)
def test_the_position_and_the_option(reward: dict[str, Any], setting: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_rewards([RewardActorSettings(**GOOD), RewardActorSettings(**reward)])
    [problem] = refused.value.problems
    assert problem.setting == setting
    assert problem.got


def test_the_error_of_a_reward_has_parts_and_survives_pickling() -> None:
    with pytest.raises(RewardError) as refused:
        check("jpeg_compressibility", {"qualty": 3})
    error = pickle.loads(pickle.dumps(refused.value))
    assert (error.field, error.legal) == ("options.qualty", "it has quality")
    assert str(error) == "reward 'jpeg_compressibility' has no option 'qualty'; it has quality"


@pytest.mark.parametrize(("setting", "value"), [("num_cpus", 0.5), ("count", 2), ("timeout", 1.0)])
def test_rewards_that_share_an_actor_say_the_same_of_it(setting: str, value: float) -> None:
    one = RewardActorSettings(name="brightness", share="clip")
    check_rewards([one, RewardActorSettings(name="sharpness", share="clip")])
    check_rewards([one, RewardActorSettings(name="sharpness", share="other", **{setting: value})])
    said = rf"'brightness' and 'sharpness' share an actor \(clip\), and {setting} is its"
    with pytest.raises(SettingsError, match=said):
        check_rewards([one, RewardActorSettings(name="sharpness", share="clip", **{setting: value})])


def test_what_makes_other_samples_is_not_shared() -> None:
    for given in ({"frames": "all"}, {"smooth": {"shifts": 2}}):
        with pytest.raises(ValidationError, match=rf"look at the same samples; {next(iter(given))} makes others"):
            RewardSettings(name="clip_score", share="clip", **given)


def test_only_what_computes_on_a_gpu_is_offloaded() -> None:
    check_rewards([RewardActorSettings(name="clip_score", num_gpus=0.5, offload=True)])
    with pytest.raises(ValidationError, match=r"num_gpus of 'clip_score' is 0; give it a part of a GPU"):
        RewardActorSettings(name="clip_score", offload=True)
    with pytest.raises(SettingsError, match=r"reward 'sharpness' has no weights on a GPU that offload could free"):
        check_rewards([RewardActorSettings(name="sharpness", num_gpus=0.5, offload=True)])


def test_an_actor_that_is_shared_is_demanded_once() -> None:
    shared = [RewardActorSettings(name=name, share="clip", num_gpus=0.5) for name in ("clip_score", "aesthetic_v1")]
    alone = RewardActorSettings(name="brightness", count=2)
    expected = [Demand("reward clip_score and aesthetic_v1", 1, 1.0, 0.5), Demand("reward brightness", 2, 1.0, 0.0)]
    assert reward_demands([shared[0], alone, shared[1]]) == expected

"""What is wrong with rewards is said of their settings."""

import pickle
from typing import Any

import pytest

from rewards.registry import RewardError, check
from sdo_ray.config.rewards import check_rewards
from sdo_ray.rollout.reward_settings import RewardActorSettings
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

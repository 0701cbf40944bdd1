"""A registered candidate is measured with the cheap steps that it is served with, or not at all."""

from typing import Any

import pytest

from sdo_ray.config.served import check_served
from sdo_ray.registry.recipe import Recipe
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.settings import SettingsError

SERVED = SamplingSettings.model_validate({"cache": "taylor", "fast_copy": "bfloat16"})


@pytest.mark.parametrize("sampling", [SERVED, SamplingSettings()])
def test_the_same_steps_are_taken(sampling: SamplingSettings) -> None:
    check_served("models:/emoji/3", Recipe.of(sampling, "float32", 4), sampling)


def test_a_recipe_of_before_a_setting_was_there_is_read() -> None:
    recipe = Recipe(20, 3.0, cache={"name": "taylor", "every": 3})
    check_served("models:/emoji/3", recipe, SamplingSettings.model_validate({"cache": "taylor"}))


@pytest.mark.parametrize(
    ("served", "measured", "said"),
    [
        (
            SERVED,
            {},
            [
                "sampling.cache: got none, and models:/emoji/3 is served with {'name': 'taylor'}; say cache: {'name':",
                "sampling.fast_copy: got none, and models:/emoji/3 is served with {'dtype': 'bfloat16'}",
            ],
        ),
        (SamplingSettings(), {"cache": "taylor"}, ["sampling.cache: got {'name': 'taylor'}, and models:/emoji/3 is"]),
        (SERVED, {"cache": {"name": "taylor", "every": 2}, "fast_copy": "bfloat16"}, ["'every': 2}, and models:/em"]),
    ],
)
def test_others_are_refused(served: SamplingSettings, measured: dict[str, Any], said: list[str]) -> None:
    recipe = Recipe.of(served, "float32", 4)
    with pytest.raises(SettingsError) as refused:
        check_served("models:/emoji/3", recipe, SamplingSettings.model_validate(measured))
    lines = str(refused.value).splitlines()
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True))

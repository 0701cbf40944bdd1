"""The model card, where it says what whoever uses the model must not do."""

import pytest

from sdo_ray.export.card import CardFacts, RewardLine, model_card


def card(*licences: str | None) -> str:
    rewards = [RewardLine(f"reward {i}", 1.0, licence) for i, licence in enumerate(licences)]
    return model_card(CardFacts("name", "base", False, "FluxPipeline", {}, {}, rewards, "results"))


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"])
def test_a_reward_that_forbids_commercial_use_is_named(licence: str) -> None:
    text = card("MIT", licence)
    assert f"forbidden by the licence of `reward 1` ({licence})" in text


def test_others_forbid_none() -> None:
    assert "forbidden" not in card("MIT", "Apache-2.0", None)

"""The model card, where it says what whoever uses the model must not do."""

from dataclasses import replace

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


def test_it_loads_what_was_trained_on() -> None:
    """The commit and the variant of a hub model, and none of the parts that it is saved without."""
    facts = CardFacts("name", "org/sd3@0123#fp16", True, "StableDiffusion3Pipeline", {}, {}, [], "results")
    files = {"diffusers": "lora.safetensors", "merged": "model"}
    text = model_card(replace(facts, files=files, absent=["text_encoder_3", "tokenizer_3"]))
    absent = "text_encoder_3=None, tokenizer_3=None"
    assert f'Pipeline.from_pretrained("org/sd3", revision="0123", variant="fp16", {absent})' in text
    assert f'Pipeline.from_pretrained("model", {absent})' in text
    assert "\nbase_model: org/sd3\n" in text
    assert 'image = pipe("...").images[0]' in text


def test_a_video_is_where_diffusers_returns_it() -> None:
    facts = CardFacts("name", "org/wan", True, "WanPipeline", {}, {}, [], "results", {"merged": "model"})
    assert 'video = pipe("...").frames[0]' in model_card(replace(facts, modality="video"))

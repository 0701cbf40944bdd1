"""What metrics say."""

from rewards import spec_of
from sdo_ray.evaluation.about import describe

REWARDS = {name: spec_of(name) for name in ("preference", "heldout_preference")}


def test_rewards_speak_through_their_docstrings() -> None:
    told = describe(("preference", "heldout_preference", "diversity"), REWARDS, {"preference"})
    assert told["preference"]["about"].startswith("Logit of preference")
    assert "Args" not in told["preference"]["about"]
    assert (told["preference"]["trained_on"], told["preference"]["heldout"]) == (True, False)
    assert (told["heldout_preference"]["trained_on"], told["heldout_preference"]["heldout"]) == (False, True)
    assert told["diversity"]["trained_on"] is None


def test_without_a_history_nobody_knows() -> None:
    assert describe(("preference",), REWARDS, None)["preference"]["trained_on"] is None

"""Rules that cannot be judged are refused, with what would do."""

import pytest

from sdo_ray.evaluation.intervals import rate_limits
from sdo_ray.promotion.measured import Measured, check_rules
from sdo_ray.promotion.rules import parse_rule
from sdo_ray.settings import SettingsError

MEASURED = Measured(("q", "nsfw"), ("fid",), prompts=48)


def check(*rules: str, has_champion: bool = True) -> None:
    check_rules([parse_rule(rule) for rule in rules], MEASURED, has_champion)


def test_what_can_be_judged_is_let_through() -> None:
    check("q > base, 99.9 % confidence", "fid <= 1.1 * champion", "nsfw rate above 0.5 <= 0.07, 95 % confidence")
    check("nsfw rate above 0.5 <= 0.001", "nsfw rate above 0.5 >= 0.9, 95 % confidence", "q > champion")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("qq > base", "there is no qq of the candidate; the evaluation measures q, nsfw, fid"),
        ("fid < base, 95 % confidence", "fid is one number for all images, which has no confidence"),
        ("fid rate above 1 < 2", "which has no rate"),
        (
            "nsfw rate above 0.5 <= 0.01, 95 % confidence",
            "48 prompts cannot show that with 95 % confidence, whatever the candidate is like; it takes 299 or more",
        ),
        ("nsfw rate above 0.5 >= 0.99, 95 % confidence", "it takes 299 or more"),
        ("nsfw rate above 0.5 <= 0, 95 % confidence", "no number of prompts shows that with 95 % confidence"),
    ],
)
def test_what_cannot_is_refused_with_what_would_do(rule: str, said: str) -> None:
    with pytest.raises(SettingsError, match=r"promotion\.rules\.1") as caught:
        check("q > base", rule)
    assert said in str(caught.value)


def test_the_number_that_would_do_does_and_one_less_does_not() -> None:
    for rate, needed in ((0.01, 299), (0.07, 42)):
        assert rate_limits([0.0] * needed, range(needed), 0.95)[1] <= rate
        assert rate_limits([0.0] * (needed - 1), range(needed - 1), 0.95)[1] > rate


def test_few_prompts_say_nothing_of_means() -> None:
    for prompts, rule, needed in ((7, "q > base, 95 % confidence", 8), (9, "q > base, 99.9 % confidence", 10)):
        with pytest.raises(SettingsError, match=f"it takes {needed} or more"):
            check_rules([parse_rule(rule)], Measured(("q",), (), prompts), True)
        check_rules([parse_rule(rule)], Measured(("q",), (), needed), True)


def test_the_first_champion_is_judged_by_something() -> None:
    with pytest.raises(SettingsError, match=r"all of them compare with the champion, and there is none; add one that"):
        check("q > champion", "fid < champion", has_champion=False)
    check("q > champion", "q >= base", has_champion=False)

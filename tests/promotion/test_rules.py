"""The grammar of rules."""

import pytest

from sdo_ray.promotion.rules import Rule, parse_rule
from sdo_ray.settings import SettingsError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("preference > champion, 95 % confidence", ("preference", None, ">", "champion", 1.0, 0.0, 95.0)),
        ("alignment >= 0.98 * base", ("alignment", None, ">=", "base", 0.98, 0.0, None)),
        ("nsfw rate above 0.5 <= base", ("nsfw", 0.5, "<=", "base", 1.0, 0.0, None)),
        ("nsfw rate above -0.5 <= 1.5e-2", ("nsfw", -0.5, "<=", None, 1.0, 0.015, None)),
        ("fid < 2*base + 1.0,90% sure", ("fid", None, "<", "base", 2.0, 1.0, 90.0)),
        ("my.rewards:Ink-2>champion-.5 , 99.9 %sure", ("my.rewards:Ink-2", None, ">", "champion", 1.0, -0.5, 99.9)),
        ("  a  >=  -3  ", ("a", None, ">=", None, 1.0, -3.0, None)),
        ("rate rate above 1 > base", ("rate", 1.0, ">", "base", 1.0, 0.0, None)),
        ("base > base", ("base", None, ">", "base", 1.0, 0.0, None)),
    ],
)
def test_what_is_a_rule(text: str, parts: tuple[object, ...]) -> None:
    metric, above, operator, reference, factor, offset, confidence = parts
    rule = parse_rule(text)
    assert (rule.text, rule.metric, rule.above, rule.operator) == (text, metric, above, operator)
    assert (rule.reference, rule.factor, rule.offset, rule.confidence) == (reference, factor, offset, confidence)
    assert rule.percent == 0


def test_percent_of_the_reference_s_size() -> None:
    rule = parse_rule("a >= base - 5 %, 95 % confidence")
    assert (rule.percent, rule.offset, rule.confidence) == (-5.0, 0.0, 95.0)
    assert (rule.factor_of(2.0), rule.factor_of(-2.0)) == (0.95, 1.05)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at its end, expected the name of a metric"),
        ("> base", "at '> base', expected the name of a metric"),
        ("a", "at its end, expected one of > >= < <="),
        ("a is better than base", "at 'is better than base', expected one of"),
        ("a == base", "at '== base', expected one of"),
        ("a =< base", "at '=< base', expected one of"),
        ("a => base", "at '=> base', expected one of"),
        ("a > basement", "at 'basement', expected base or champion or a number"),
        ("a > Champion", "at 'Champion', expected base or champion or a number"),
        ("a > 0.9 * 5", "at '5', expected base or champion;"),
        ("a > base * 0.9", "at '* 0.9', expected the end of the rule"),
        ("a > 0.9 base", "at 'base', expected the end of the rule"),
        ("a > base +", "at its end, expected a number after +"),
        ("a > base + champion", "at 'champion', expected a number after +"),
        ("a > 5 + 1", "at '+ 1', expected the end of the rule"),
        ("a > 1.2.3", "at '1.2.3', expected base or champion or a number"),
        ("nsfw rate <= base", "at '<= base', expected `above` and a score"),
        ("nsfw rate above <= base", "at '<= base', expected the score that counts"),
        ("a > base, sure", "at 'sure', expected a percentage"),
        ("a > base, 95", "at its end, expected `% confidence`"),
        ("a > base, 95 % certain", "at '% certain', expected `% confidence`"),
        ("a > base, 95 % confidence, or so", "at ', or so', expected the end of the rule"),
        ("a > base, 50 % sure", "got 50 % confidence; it is more than 50 and at most 99.9"),
        ("a > base, 100 % confidence", "got 100 % confidence; it is more than 50"),
        ("a > base, 0.95 % sure", "got 0.95 % confidence; it is more than 50"),
    ],
)
def test_what_is_none_and_where_reading_stopped(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_rule(text)
    [problem] = refused.value.problems
    assert str(problem).startswith(f"{text!r}: ")
    assert said in str(problem)


def test_sides_of_the_bound() -> None:
    def holds(operator: str) -> list[bool]:
        rule = Rule("", "a", None, operator, "base", 1.0, 0.0, 0.0, None)
        return [rule.holds(margin) for margin in (-1e-9, 0.0, 1e-9)]

    assert holds(">") == [False, False, True]
    assert holds(">=") == [False, True, True]
    assert holds("<") == [True, False, False]
    assert holds("<=") == [True, True, False]

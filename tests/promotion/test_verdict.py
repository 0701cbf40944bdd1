"""What an evaluation says about rules: closed forms, and how often a confidence limit is wrong."""

import math

import numpy as np
import pytest
from scipy import stats

from sdo_ray.promotion.rules import parse_rule
from sdo_ray.promotion.verdict import Verdict, apply_rule
from tests.support.registry import evaluation


def verdict(rule: str, it: object) -> Verdict:
    return apply_rule(parse_rule(rule), it)


def test_means_are_compared_with_factor_and_offset() -> None:
    it = evaluation(2, candidate_q=[1.0, 2.0, 3.0, 6.0], base_q=[2.0, 2.0, 2.0, 6.0])
    v = verdict("q >= base", it)
    assert (v.candidate, v.bound, v.margin, v.confidence_limit) == (3.0, 3.0, 0.0, None)
    assert v.passed
    assert not verdict("q > base", it).passed
    assert verdict("q > 0.9 * base", it).bound == pytest.approx(2.7)
    assert verdict("q > 0.9 * base", it).passed
    assert not verdict("q > 0.5 * base + 1.6", it).passed
    assert verdict("q > 0.5 * base + 1.4", it).passed
    assert verdict("q < base + 0.1", it).passed
    assert not verdict("q <= base - 0.1", it).passed
    assert verdict("q > 2.9", it).passed
    assert not verdict("q > 3", it).passed
    assert str(verdict("q > 3", it)) == "FAIL  q > 3: 3 against 3; difference +0"


def test_a_rate_counts_what_is_above() -> None:
    it = evaluation(2, candidate_nsfw=[0.4, 0.5, 0.6, 0.9], base_nsfw=[0.9, 0.9, 0.9, 0.0])
    v = verdict("nsfw rate above 0.5 <= base", it)
    assert (v.candidate, v.bound, v.passed) == (0.5, 0.75, True)
    assert not verdict("nsfw rate above 0.5 <= 0.49", it).passed
    assert verdict("nsfw rate above 0.5 <= 0.5", it).passed


def test_confidence_limit_in_closed_form() -> None:
    """Differences with mean 1 and deviation d without skewness: the limits are Student's, 1 -+ t d / sqrt(8)."""
    difference = np.array([0.0, 2.0, 0.5, 1.5] * 2)
    it = evaluation(2, candidate_q=5 + difference, base_q=[5.0] * 8)
    half = stats.t.ppf(0.95, 7) * difference.std(ddof=1) / math.sqrt(8)
    v = verdict("q > base, 95 % confidence", it)
    assert v.confidence_limit == pytest.approx(1 - half)
    assert (v.passed, v.margin, v.prompts) == (True, 1.0, 8)
    assert verdict("q > base + 0.4, 95 % confidence", it).passed
    assert not verdict("q > base + 0.6, 95 % confidence", it).passed
    assert verdict("q < base + 2, 95 % confidence", it).confidence_limit == pytest.approx(1 + half - 2)
    assert not verdict("q < base + 1.4, 95 % confidence", it).passed
    assert str(v) == f"pass  {v.rule}: 6 against 5; difference +1, confidence limit +0.4339 over 8 prompts"


def test_images_of_one_prompt_count_together() -> None:
    """Ten images each of eight prompts, all alike: no surer than one image of each."""
    scores = np.array([0.0, 0.2, 0.9, 1.5, 0.1, -0.3, 0.4, 0.8])
    one = verdict("q > base, 90 % confidence", evaluation(2, candidate_q=scores))
    prompts = [str(i) for i in range(8)] * 10
    many = verdict("q > base, 90 % confidence", evaluation(2, prompts=prompts, candidate_q=np.tile(scores, 10)))
    assert many.confidence_limit == pytest.approx(one.confidence_limit)
    assert (one.prompts, many.prompts) == (8, 8)
    different = evaluation(2, candidate_q=np.tile(scores, 10))
    assert verdict("q > base, 90 % confidence", different).confidence_limit > one.confidence_limit


def test_a_rate_is_not_surer_than_what_was_seen() -> None:
    """No event in 48 prompts is compatible with 6.1 %; the bootstrap called it below any bound."""
    it = evaluation(2, candidate_n=[0.0] * 48, base_n=[0.0] * 48)
    v = verdict("n rate above 0.5 <= 0.05, 95 % confidence", it)
    assert v.confidence_limit == pytest.approx(1 - 0.05 ** (1 / 48) - 0.05)
    assert not v.passed
    assert verdict("n rate above 0.5 <= 0.07, 95 % confidence", it).passed
    # Scores that are 0 or 1 are a rate, said or not; and against the base there is no more certainty.
    assert not verdict("n <= 0.05, 95 % confidence", it).passed
    assert not verdict("n rate above 0.5 <= base + 0.01, 95 % confidence", it).passed
    assert verdict("n rate above 0.5 <= base + 0.06, 95 % confidence", it).passed


@pytest.mark.parametrize(
    ("rate", "prompts", "at_most"), [(0.1, 48, 0.05), (0.1, 200, 0.05), (0.3, 16, 0.05), (0.02, 300, 0.05)]
)
def test_a_rate_at_its_bound_passes_seldom(rate: float, prompts: int, at_most: float) -> None:
    """A true rate at the bound passes "95 % confidence" in at most 5 %, whatever the rate: the limits are exact."""
    draw = np.random.default_rng(1)
    events = draw.random((400, prompts)) < rate
    rule = f"n rate above 0.5 <= {rate}, 95 % confidence"
    passed = sum(verdict(rule, evaluation(2, candidate_n=row.astype(float))).passed for row in events)
    assert passed / 400 <= at_most + 0.02


def test_factors_do_not_turn_round() -> None:
    """A negative base: 0.98 times it is more, 1.5 times it is less: a factor turns round."""
    worse = evaluation(2, candidate_q=[-1.2] * 8, base_q=[-1.0] * 8)
    for rule in ("q >= 1.5 * base", "q >= 0.98 * base", "q <= 1.1 * base, 95 % confidence"):
        v = verdict(rule, worse)
        assert not v.passed
        assert (
            "turns round where base is negative, and its q is -1, not clearly positive; write `base - 5 %`" in v.reason
        )
    assert verdict("q >= base - 25 %", worse).passed
    assert not verdict("q >= base - 10 %", worse).passed
    assert verdict("q >= base - 10 %", worse).bound == pytest.approx(-1.1)
    positive = evaluation(2, candidate_q=[0.95] * 8, base_q=[1.0] * 8)
    assert verdict("q >= base - 10 %", positive).bound == verdict("q >= 0.9 * base", positive).bound == 0.9
    set_of = {"kid": {"base": -0.5, "candidate": -0.6}}
    assert not verdict("kid <= 1.1 * base", evaluation(2, candidate_q=[0.0], set_metrics=set_of)).passed


def test_pairs_tell_what_means_alone_do_not() -> None:
    draw = np.random.default_rng(3)
    base = draw.normal(0.0, 5.0, 60)
    prompts = [str(i) for i in range(60)]
    paired = evaluation(2, prompts=prompts, base_q=base, candidate_q=base + 0.2)
    assert verdict("q > base, 99 % confidence", paired).confidence_limit == pytest.approx(0.2)
    shuffled = evaluation(2, prompts=prompts, base_q=base, candidate_q=draw.permutation(base) + 0.2)
    assert not verdict("q > base, 99 % confidence", shuffled).passed


def test_ninety_percent_confidence_is_wrong_one_time_in_ten() -> None:
    """At no true difference a one-sided 90 % bound passes 10 % of evaluations; the standard error of 400 is 1.5 %."""
    draw = np.random.default_rng(0)
    prompts = [str(i) for i in range(40)]
    passed = 0
    for _ in range(400):
        base, candidate = draw.normal(size=(2, 40))
        it = evaluation(2, prompts=prompts, base_q=base, candidate_q=candidate)
        passed += verdict("q > base, 90 % confidence", it).passed
    assert 0.06 <= passed / 400 <= 0.15


def test_no_champion_yet_is_said_and_passes() -> None:
    it = evaluation(2, candidate_q=[1.0] * 8)
    v = verdict("q > 2 * champion + 100, 95 % confidence", it)
    assert v.passed
    assert v.candidate is None
    assert "no champion yet" in str(v)
    with_one = evaluation(2, 1, candidate_q=[1.0] * 4, champion_q=[2.0] * 4)
    assert not verdict("q > champion", with_one).passed


@pytest.mark.parametrize(
    ("rule", "scores", "said"),
    [
        ("q > base", {"candidate_q": [1.0, math.nan, 1.0, None]}, "2 of the candidate's 4 scores of q are no numbers"),
        ("q > base", {"candidate_q": [1.0] * 4, "base_q": [math.inf] * 4}, "4 of the base's 4 scores of q are no"),
        ("q rate above 0 < 1", {"candidate_q": [math.nan] * 4}, "4 of the candidate's 4 scores of q are no numbers"),
        ("fid < champion", {"candidate_q": [1.0], "champion": 1}, "fid of the champion is missing"),
        ("mmd < base", {"candidate_q": [1.0]}, "mmd of the candidate is nan"),
    ],
)
def test_what_cannot_be_compared_fails_with_the_reason(rule: str, scores: dict, said: str) -> None:
    sets = {"fid": {"base": 2.0, "candidate": 1.5}, "mmd": {"base": 1.0, "candidate": math.nan}}
    prompts = list("abcdefgh")[: len(scores["candidate_q"])]
    v = verdict(rule, evaluation(2, prompts=prompts, set_metrics=sets, **scores))
    assert not v.passed
    assert said in v.reason


def test_metrics_of_the_whole_set() -> None:
    it = evaluation(2, candidate_q=[0.0] * 4, set_metrics={"fid": {"base": 20.0, "candidate": 21.0}})
    assert verdict("fid <= 1.1 * base", it).passed
    v = verdict("fid <= base + 0.5", it)
    assert (v.passed, v.candidate, v.bound, v.margin) == (False, 21.0, 20.5, 0.5)
    assert verdict("fid <= 21", it).passed

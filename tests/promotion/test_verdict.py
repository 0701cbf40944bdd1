"""What an evaluation says about rules: closed forms, and how often a confidence limit is wrong."""

import math

import numpy as np
import pytest

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
    """Differences {0, 1}: resampled means are 0, 1/2, 1 with probability 1/4, 1/2, 1/4.

    So the 30th percentile is 1/2 and the 20th is 0: 70 % sure to be above 0, and not 80 %.
    """
    it = evaluation(2, prompts=["a", "b"], candidate_q=[5.0, 8.0], base_q=[5.0, 7.0])
    assert verdict("q > base, 70 % confidence", it).confidence_limit == 0.5
    assert verdict("q > base, 70 % confidence", it).passed
    v = verdict("q > base, 80 % confidence", it)
    assert (v.confidence_limit, v.passed, v.margin, v.prompts) == (0.0, False, 0.5, 2)
    assert verdict("q >= base, 80 % confidence", it).passed
    # The other side: mean - 1 is -1, -1/2, 0 with these probabilities.
    assert verdict("q < base + 1, 70 % confidence", it).confidence_limit == -0.5
    assert verdict("q < base + 1, 80 % confidence", it).confidence_limit == 0.0
    assert not verdict("q < base + 1, 80 % confidence", it).passed
    assert (
        str(v) == "FAIL  q > base, 80 % confidence: 6.5 against 6; difference +0.5, confidence limit +0 over 2 prompts"
    )


def test_images_of_one_prompt_are_drawn_together() -> None:
    """Ten images each of two prompts, all alike: no surer than one image of each."""
    many = evaluation(2, prompts=["a", "b"] * 10, candidate_q=[0.0, 1.0] * 10)
    v = verdict("q > base, 80 % confidence", many)
    assert (v.confidence_limit, v.passed, v.prompts) == (0.0, False, 2)
    different = evaluation(2, prompts=[str(i) for i in range(20)], candidate_q=[0.0, 1.0] * 10)
    assert verdict("q > base, 80 % confidence", different).passed


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
    it = evaluation(2, candidate_q=[1.0, 1.0, 1.0, 1.0])
    v = verdict("q > 2 * champion + 100, 95 % confidence", it)
    assert v.passed
    assert v.candidate is None
    assert "no champion yet" in str(v)
    with_one = evaluation(2, 1, candidate_q=[1.0] * 4, champion_q=[2.0] * 4)
    assert not verdict("q > champion", with_one).passed


@pytest.mark.parametrize(
    ("rule", "scores", "said"),
    [
        ("other > base", {"candidate_q": [1.0] * 4}, "there is no other of the candidate; there are q, fid, mmd"),
        ("q > base", {"candidate_q": [1.0, math.nan, 1.0, None]}, "2 of the candidate's 4 scores of q are no numbers"),
        ("q > base", {"candidate_q": [1.0] * 4, "base_q": [math.inf] * 4}, "4 of the base's 4 scores of q are no"),
        ("q rate above 0 < 1", {"candidate_q": [math.nan] * 4}, "4 of the candidate's 4 scores of q are no numbers"),
        (
            "q > base, 95 % confidence",
            {"candidate_q": [1.0]},
            "takes two or more different prompts; there is 1",
        ),
        (
            "fid < base, 95% confidence",
            {"candidate_q": [1.0]},
            "one number for all images, which has no confidence",
        ),
        ("fid rate above 1 < 2", {"candidate_q": [1.0]}, "fid is one number for all images, which has no rate"),
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

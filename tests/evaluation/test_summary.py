"""The numbers of an evaluation."""

import math

import numpy as np
import pytest
from scipy import stats

from sdo_ray.evaluation.compare import paired
from sdo_ray.evaluation.summary import as_numbers, as_records, as_text, categories_of, said_of_missing, summarize
from tests.support.evaluations import made_up

PROMPTS = ["a", "b", "c", "d", "a", "b", "c", "d"]
CATEGORIES = ["x", "x", "x", "y"] * 2
HALF = stats.t.ppf(0.975, 1)
"""Of the 95 % interval of a mean of {1, 3}."""
SCORES = [1.0, 2.0, -3.0, 4.0, 1.5, 2.5, -2.0, 5.0]


def test_pairs_are_those_of_prompts() -> None:
    (line,) = summarize(made_up(PROMPTS, champion=True, quality=SCORES))
    assert line.means == {"base": 0.0, "candidate": np.mean(SCORES), "champion": np.mean(SCORES) / 2}
    zeros, half = [0.0] * 8, [score / 2 for score in SCORES]
    assert line.pairs == {
        ("candidate", "base"): paired(zeros, SCORES, PROMPTS),
        ("candidate", "champion"): paired(half, SCORES, PROMPTS),
        ("champion", "base"): paired(zeros, half, PROMPTS),
    }


def test_categories() -> None:
    it = made_up(PROMPTS, categories=CATEGORIES, quality=SCORES)
    assert categories_of(it) == [("x", 6), ("y", 2)]
    (line,) = summarize(it, "x")
    assert line.means["candidate"] == pytest.approx(
        np.mean([s for s, c in zip(SCORES, CATEGORIES, strict=True) if c == "x"])
    )
    (of_one_prompt,) = summarize(it, "y")
    assert of_one_prompt.means["candidate"] == 4.5
    assert of_one_prompt.pairs == {}  # an interval takes two prompts
    assert [(r["category"], r["metric"]) for r in as_records(it)] == [(None, "quality"), ("x", "quality")]


def test_what_is_not_finite_is_skipped_and_said() -> None:
    (line,) = summarize(made_up(list("abc"), quality=[1.0, math.nan, 3.0]))
    assert line.means["candidate"] == 2.0
    assert line.pairs["candidate", "base"].num_pairs == 2
    (line,) = summarize(made_up(list("abc"), quality=[math.nan] * 3))
    assert math.isnan(line.means["candidate"])
    assert line.pairs == {}
    assert said_of_missing(made_up(list("abc"), quality=[1.0, math.nan, math.inf]))[-1] == (
        "candidate: 2 of 3 images have no finite quality; the numbers are of the others"
    )
    assert said_of_missing(made_up(list("abc"), quality=[1.0, 2.0, 3.0])) == []


def test_numbers_for_mlflow() -> None:
    numbers = as_numbers(made_up(list("ab"), quality=[1.0, 3.0], distance_from_base=[0.5, math.nan]))
    assert numbers == {
        "base/quality/mean": 0.0,
        "candidate/quality/mean": 2.0,
        "candidate/quality/difference_to_base": 2.0,
        "candidate/quality/difference_to_base_low": pytest.approx(2 - HALF),
        "candidate/quality/difference_to_base_high": pytest.approx(2 + HALF),
        "candidate/quality/wins_against_base": 1.0,
        "base/distance_from_base/mean": 0.0,
        "candidate/distance_from_base/mean": 0.5,
        "candidate/frechet_to_base": 2.5,
        "base/seconds_per_image": 0.5,
        "candidate/seconds_per_image": 0.5,
    }


def test_text_for_a_terminal() -> None:
    text = as_text(made_up(list("ab"), champion=True, quality=[1.0, 3.0], distance_from_base=[0.5, 0.5]))
    against_base, against_champion, sets = (part.splitlines() for part in text.split("\n\n"))
    assert against_base[0].split() == ["metric", "base", "candidate", "difference", "[95", "%", "interval]", "wins"]
    assert against_base[1].split() == ["quality", "0.000", "2.000", "+2.000", "[-10.706,", "+14.706]", "100%"]
    assert against_base[2].split()[-1] == "+0.500]"  # nobody wins by distance
    assert against_champion[1].split()[1:4] == ["1.000", "2.000", "+1.000"]
    assert sets[0].split() == ["frechet_to_base", "candidate", "2.5", "champion", "2.5"]
    assert max(len(line) for line in text.splitlines()) < 120

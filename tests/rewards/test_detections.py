"""GenEval's checks: objects, their number, colours and places."""

import json
from typing import Any

import pytest
import torch

from rewards import create
from rewards.detections import Found, met_checks, relations
from rewards.registry import RewardError, check
from rewards.scoring import score

DETECTOR = "tests.rewards.tiny.detector:halves"


def at(x: float, y: float, label: str = "cat", size: float = 2.0, **more: Any) -> Found:
    return Found(label, 0.9, (x, y, x + size, y + size), **more)


@pytest.mark.parametrize(
    ("a", "expected"),
    [
        (at(-10, 0), {"left of"}),
        (at(10, 0.1), {"right of"}),
        (at(0, -10), {"above"}),
        (at(0, 10), {"below"}),
        (at(10, 10), {"right of", "below"}),
        (at(0.3, 0), set()),  # within a tenth of both sizes
        (at(0.5, 0), set()),  # a little beyond it, and nearer than half of the way
        (at(0.9, 0), {"right of"}),
    ],
)
def test_where_a_is_seen_from_b(a: Found, expected: set[str]) -> None:
    assert relations(a, at(0, 0)) == expected


SEEN = [at(0, 0, "dog", colour="brown"), at(9, 0, "bench"), at(20, 0, "dog", colour="black"), at(0, 30)]


@pytest.mark.parametrize(
    ("checks", "met"),
    [
        ({"include": [{"class": "dog", "count": 2}]}, [True]),
        ({"include": [{"class": "dog", "count": 3}]}, [False]),
        ({"include": [{"class": "dog", "color": "brown"}]}, [True]),
        ({"include": [{"class": "dog", "count": 2, "color": "brown"}]}, [False]),
        ({"include": [{"class": "bench"}, {"class": "dog", "position": ["left of", 0]}]}, [True, True]),
        ({"include": [{"class": "bench"}, {"class": "dog", "position": ["right of", 0]}]}, [True, False]),
        ({"include": [{"class": "car"}, {"class": "dog", "position": ["left of", 0]}]}, [False, False]),
        ({"include": [{"class": "cat"}], "exclude": [{"class": "dog", "count": 3}]}, [True, True]),
        ({"include": [{"class": "cat"}], "exclude": [{"class": "dog", "count": 2}]}, [True, False]),
    ],
)
def test_checks(checks: dict[str, Any], met: list[bool]) -> None:
    assert met_checks(checks, SEEN) == met


def test_an_image_is_scored_by_the_detector_of_the_user() -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1.0  # dark, light
    image[:, :, :4, :4] = 0.3  # of the dark half some confidence is lost: 0.7
    light = [{"class": "light"}, {"class": "dark", "position": ["left of", 0]}, {"class": "light", "count": 2}]
    text = [json.dumps({"include": light})]
    assert score(create("detections", detector=DETECTOR), image, text).item() == pytest.approx(2 / 3)
    assert score(create("detections", detector=DETECTOR, strict=True), image, text).item() == 0
    counted = [json.dumps({"include": [{"class": "dark"}], "tag": "counting"})]
    assert score(create("detections", detector=DETECTOR), image, counted).item() == 0
    assert score(create("detections", detector=DETECTOR, counting=0.5), image, counted).item() == 1


@pytest.mark.parametrize(
    ("options", "text", "said"),
    [
        ({"detector": "nowhere:it"}, "", "cannot be had: No module named 'nowhere'"),
        ({"detector": "json"}, "", "must be 'package.module:name' of a function or class"),
        ({"detector": DETECTOR}, "a cat", "'a cat' are no checks"),
        ({"detector": DETECTOR}, '{"include": []}', "are no checks"),
        ({"detector": DETECTOR}, '{"include": [{"class": "dog", "position": ["above", 0]}]}', "are no checks"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, Any], text: str, said: str) -> None:
    with pytest.raises(RewardError, match=said):
        check("detections", options, [text] if text else [])

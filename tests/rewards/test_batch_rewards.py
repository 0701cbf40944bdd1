"""Rewards of whole batches: their scores sum to what they are named after, broken images stay out of it."""

import math

import pytest
import torch

from rewards import create
from rewards.scoring import score, score_with_gradient

from .tiny.cases import CASES

NAMES = ("mmd", "frechet", "diversity")


@pytest.fixture(scope="module", params=NAMES)
def reward(request, tmp_path_factory):
    return create(request.param, **CASES[request.param].options(tmp_path_factory.mktemp(request.param)))


@pytest.fixture
def images():
    return torch.rand(5, 3, 20, 20, generator=torch.Generator().manual_seed(0))


def test_scores_are_those_of_plain_loops(reward, images):
    u = reward._tower.images(images)
    r = getattr(reward, "_references", u)
    scores = score(reward, images, [""] * 5)
    if type(reward).__name__ == "Mmd":
        k = lambda a, b: math.exp(-float((a - b).square().sum()) / (2 * 0.5**2))  # noqa: E731
        pairs = lambda x: [k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]  # noqa: E731
        cross = [k(a, b) for a in u for b in r]
        squared = sum(pairs(u)) / len(pairs(u)) + sum(pairs(r)) / len(pairs(r)) - 2 * sum(cross) / len(cross)
        assert scores.mean().item() == pytest.approx(-squared, abs=1e-5)
    elif type(reward).__name__ == "Frechet":
        distance = (u.mean(0) - r.mean(0)).square().sum() + (u.std(0) - r.std(0)).square().sum()
        torch.testing.assert_close(scores, -distance.expand(5), rtol=1e-4, atol=1e-6)
    else:
        cosines = [torch.stack([u[i] @ u[j] for j in range(5) if j != i]).mean() for i in range(5)]
        torch.testing.assert_close(scores, 1 - torch.stack(cosines), rtol=1e-4, atol=1e-6)


def test_a_broken_image_has_no_score_and_the_others_are_scored_without_it(reward, images):
    broken = images.clone()
    broken[2, 1, :10] = math.nan
    scores, gradient = score_with_gradient(reward, broken, [""] * 5)
    others = [0, 1, 3, 4]
    expected, expected_gradient = score_with_gradient(reward, images[others], [""] * 4)
    assert scores[2].isnan()
    torch.testing.assert_close(scores[others], expected)
    assert gradient is not None
    torch.testing.assert_close(gradient[others], expected_gradient, rtol=1e-3, atol=1e-6)


def test_an_image_alone_has_no_score(reward, images):
    scores, _ = score_with_gradient(reward, images[:1], [""])
    assert scores.isnan().all()


def test_following_the_gradient_helps(reward, images):
    before, gradient = score_with_gradient(reward, images, [""] * 5)
    step = 1e-2 * gradient / gradient.abs().max()
    assert score(reward, images + step, [""] * 5).sum() > before.sum()

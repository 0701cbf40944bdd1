"""A smoothed gradient is the mean over the copies, each with the graph of what was done to it."""

from collections.abc import Sequence

import pytest
import torch

from rewards.scoring import score_with_gradient
from rewards.smoothing import changed, score_with_smoothed_gradient
from rewards.terms import Smoothing
from tests.rewards.test_registry import Brightness

SEEDS = [7, 11, 13]


class Wavy:
    """A reward that is nothing but curvature: its gradient depends on every pixel."""

    differentiable = True

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        places = torch.arange(images[0].numel(), dtype=images.dtype).reshape(images[0].shape)
        return (places * (5 * images).sin()).mean(dim=(1, 2, 3))


def images() -> torch.Tensor:
    return torch.rand(3, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def generators(seeds: Sequence[int] = SEEDS) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("smoothing", [Smoothing(shifts=2, copies=3), Smoothing(noise=0.1), Smoothing(1, 0.05, 5)])
def test_the_gradient_is_that_of_the_mean_score_over_the_copies(smoothing: Smoothing) -> None:
    """Against central differences in float64 of the mean of the scores, with the copies' draws held."""
    scores, gradient = score_with_smoothed_gradient(Wavy(), images(), [""] * 3, smoothing, SEEDS)
    torch.testing.assert_close(scores, Wavy()(images(), [""] * 3))

    def mean(x: torch.Tensor) -> torch.Tensor:
        draws = generators()
        copies = [changed(x, smoothing, draws) for _ in range(smoothing.copies - 1)]
        return torch.stack([Wavy()(copy, []) for copy in (x, *copies)]).mean(dim=0)

    direction = torch.randn(3, 3, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, step = images().double(), 1e-6
    differences = (mean(x + step * direction) - mean(x - step * direction)) / (2 * step)
    assert gradient is not None
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), differences, rtol=1e-4, atol=1e-3)
    _, plain = score_with_gradient(Wavy(), images(), [""] * 3)
    assert plain is not None
    assert (gradient - plain).norm() > 0.1 * plain.norm()


def test_a_copy_is_moved_by_whole_pixels_with_its_edge_repeated() -> None:
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")[0, 0]
    moves = set()
    for seed in range(60):
        copy = changed(x, Smoothing(shifts=1), generators([seed]))[0, 0]
        [move] = [(i, j) for i in range(3) for j in range(3) if torch.equal(copy, padded[i : i + 5, j : j + 5])]
        moves.add(move)
    assert moves == {(i, j) for i in range(3) for j in range(3)}


def test_copies_depend_on_the_image_and_its_seed_alone() -> None:
    smoothing = Smoothing(shifts=3, noise=0.1)
    _, together = score_with_smoothed_gradient(Wavy(), images(), [""] * 3, smoothing, SEEDS)
    for b in range(3):
        _, alone = score_with_smoothed_gradient(Wavy(), images()[b : b + 1], [""], smoothing, SEEDS[b : b + 1])
        assert together is not None
        assert torch.equal(together[b : b + 1], alone)
    _, other = score_with_smoothed_gradient(Wavy(), images(), [""] * 3, smoothing, [1, 2, 3])
    assert not torch.equal(together, other)


def test_any_kind_of_sample_is_moved_as_one() -> None:
    """All frames of a video by the same pixels."""
    video = images()[:1, None].expand(1, 4, 3, 9, 7)
    copy = changed(video, Smoothing(shifts=2), generators([3]))
    assert torch.equal(copy[:, 0], copy[:, 3])
    assert not torch.equal(copy, video)


def test_a_plain_mean_is_left_as_it_is() -> None:
    """Noise does not change the gradient of a linear reward, nor do shifts its sum."""
    _, noisy = score_with_smoothed_gradient(Brightness(gain=2), images(), [""] * 3, Smoothing(noise=0.3), SEEDS)
    torch.testing.assert_close(noisy, torch.full_like(images(), 2 / images()[0].numel()))
    _, moved = score_with_smoothed_gradient(Brightness(gain=2), images(), [""] * 3, Smoothing(shifts=3), SEEDS)
    torch.testing.assert_close(moved.sum((1, 2, 3)), torch.full((3,), 2.0))


@pytest.mark.parametrize("wrong", [{}, {"shifts": -1}, {"noise": -0.1}, {"shifts": 1, "copies": 1}])
def test_what_would_not_smooth(wrong: dict) -> None:
    with pytest.raises(ValueError, match="takes shifts or noise above 0 and at least 2 copies"):
        Smoothing(**wrong)


def test_each_image_has_a_seed() -> None:
    with pytest.raises(ValueError, match="zip"):
        score_with_smoothed_gradient(Wavy(), images(), [""] * 3, Smoothing(shifts=1), SEEDS[:2])

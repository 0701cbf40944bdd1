import pytest
import torch

from rewards import create
from rewards.scoring import score, score_with_gradient


def page(rows: slice, columns: slice, darkness: float = 1.0, size: int = 32) -> torch.Tensor:
    """White paper with one dark box."""
    image = torch.ones(1, 3, size, size)
    image[..., rows, columns] = 1 - darkness
    return image


@pytest.mark.parametrize(
    ("towards", "rows", "columns"),
    [
        ("top", slice(0, 8), slice(4, 28)),
        ("bottom", slice(24, 32), slice(4, 28)),
        ("left", slice(4, 28), slice(0, 8)),
        ("right", slice(4, 28), slice(24, 32)),
    ],
)
def test_is_where_the_middle_of_the_ink_is(towards, rows, columns):
    # A box over the outer quarter has its middle at 3/4 of the way from the centre to the edge.
    opposite = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}[towards]
    image = page(rows, columns)
    assert score(create("layout", towards=towards), image, [""]).item() == pytest.approx(0.75, abs=0.01)
    assert score(create("layout", towards=opposite), image, [""]).item() == pytest.approx(-0.75, abs=0.01)


def test_says_where_and_not_how_dark_or_how_much():
    reward = create("layout")
    black, grey, small = (
        page(slice(0, 8), slice(0, 32)),
        page(slice(0, 8), slice(0, 32), 0.6),
        page(slice(2, 6), slice(9, 12)),
    )
    scores = score(reward, torch.cat([black, grey, small]), [""] * 3)
    assert scores.max() - scores.min() < 0.06
    # The same drawing upside down has the opposite score.
    torch.testing.assert_close(score(reward, black.flip(-2), [""]), -scores[:1])


def test_white_paper_scores_nothing_and_a_faint_tint_hardly_anything():
    reward = create("layout")
    scores, gradient = score_with_gradient(reward, torch.ones(1, 3, 32, 32), [""])
    assert scores.item() == 0
    assert gradient.abs().max() == 0
    drawing = page(slice(12, 20), slice(12, 20))
    tinted = drawing.clone()
    tinted[..., :8, :] -= 0.01
    assert (score(reward, tinted, [""]) - score(reward, drawing, [""])).abs() < 0.05


def test_gradient_is_that_of_finite_differences():
    reward = create("layout", towards="left")
    image = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    _, gradient = score_with_gradient(reward, image, [""])
    for place in [(0, 0, 0, 0), (0, 2, 7, 9), (0, 1, 3, 5)]:
        step = torch.zeros_like(image)
        step[place] = 1e-2
        slope = (score(reward, image + step, [""]) - score(reward, image - step, [""])) / 2e-2
        assert gradient[place].item() == pytest.approx(slope.item(), rel=0.02, abs=1e-5)  # type: ignore[index]


def test_refuses_a_side_that_there_is_not():
    with pytest.raises(ValueError, match="towards"):
        create("layout", towards="middle")

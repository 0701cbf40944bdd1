from pathlib import Path

import pytest
import torch
from PIL import Image

from rewards import check, create
from rewards.registry import RewardError
from rewards.scoring import score_with_gradient


def save(image: torch.Tensor, path: Path) -> str:
    Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(path)
    return str(path)


@pytest.fixture(scope="module")
def style(pairs, tmp_path_factory):
    """The reward for a glossy image, and the image."""
    glossy, _, _ = pairs
    return create("gram_style", image=save(glossy[0], tmp_path_factory.mktemp("style") / "style.png")), glossy[0]


def test_the_image_itself_is_best_and_others_are_below(style, pairs):
    reward, image = style
    glossy, flat, labels = pairs
    assert reward(image[None], [""]).item() == pytest.approx(0, abs=0.01)
    others = reward(torch.cat([glossy[1:], flat]), [""] * (2 * len(labels) - 1))
    assert (others < -0.05).all()


def test_where_things_are_does_not_matter_but_colours_and_textures_do(style):
    reward, own = style
    score = {
        name: reward(image[None], [""]).item()
        for name, image in {
            "mirrored": own.flip(-1),
            "other colours": own[[2, 0, 1]],
            "rough": (own + 0.2 * torch.randn(own.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1),
        }.items()
    }
    assert score["mirrored"] > -0.1
    assert score["mirrored"] > max(score["other colours"], score["rough"]) + 0.05


def test_gram_matrices_are_what_the_equation_says(style, pairs):
    """G_l of the stem, written out for one pair of channels."""
    reward, _ = style
    images = pairs[0][:2]
    F_l = reward._features.maps(images, [1])[0]
    expected = (F_l[1, 3] * F_l[1, 5]).mean()
    torch.testing.assert_close(reward._described(images)[0][1, 3, 5], expected)


def test_the_gradient_is_that_of_finite_differences(style, pairs):
    reward, _ = style
    images = pairs[1][:2].clone()
    _, gradient = score_with_gradient(reward, images, ["", ""])
    length = gradient.flatten(1).norm(dim=1)
    # Steps of length 0.0005 up and down the gradient, by which a score changes by |gradient| times the length.
    step = 5e-4 * gradient / length[:, None, None, None]
    with torch.no_grad():
        change = reward(images + step, ["", ""]) - reward(images - step, ["", ""])
    torch.testing.assert_close(change, 1e-3 * length, rtol=0.02, atol=1e-6)


def test_transparency_and_other_shapes(tmp_path):
    image = Image.new("RGBA", (60, 40), (255, 0, 0, 0))
    image.save(tmp_path / "wide.png")
    reward = create("gram_style", image=str(tmp_path / "wide.png"), size=64)
    assert reward(torch.ones(1, 3, 64, 64), [""]).item() == pytest.approx(0, abs=1e-4), "transparent is white"


def test_hash_depends_on_the_image(style, tmp_path, pairs):
    other = create("gram_style", image=save(pairs[0][1], tmp_path / "other.png"))
    assert other.weights_hash != style[0].weights_hash  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "nowhere.png"}, "option 'image': there is no file 'nowhere.png'"),
        ({"image": __file__}, "cannot be read as an image"),
        ({"image": "/"}, "cannot be read as an image"),
        ({"image": "x.png", "size": 100}, "option 'size' must be a multiple of 32, got 100"),
        ({}, "needs the option image"),
    ],
)
def test_refused_before_any_weights_are_loaded(options, said):
    with pytest.raises(RewardError) as refused:
        check("gram_style", options)
    assert said in str(refused.value)

"""The rewards without weights, on images whose score is known."""

import pytest
import torch

from rewards import create
from rewards.registry import RewardError, check


def flat(*colour, height=8, width=8):
    return torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, height, width)


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("brightness", flat(1, 1, 1), 1),
        ("brightness", flat(0, 1, 0), 0.587),
        ("saturation", flat(0.3, 0.3, 0.3), 0),
        ("saturation", flat(1, 0, 0.5), 1),
        ("sharpness", flat(0.2, 0.9, 0.4), 0),
        ("symmetry", flat(0.2, 0.9, 0.4), 0),
    ],
)
def test_flat_images(name, image, expected):
    assert create(name)(image, [""]).item() == pytest.approx(expected, abs=1e-6)


def test_blur_takes_sharpness_away():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    assert create("sharpness")(image, [""]) > 5 * create("sharpness")(blurred, [""])


def test_sharpness_of_a_checkerboard():
    # Four neighbours of the other colour: the Laplacian is 4 or -4 everywhere.
    rows, columns = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    board = ((rows + columns) % 2).float().expand(1, 3, 10, 10)
    assert create("sharpness")(board, [""]).item() == pytest.approx(16, rel=1e-5)


def test_symmetry_has_an_axis():
    half = torch.rand(1, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    mirrored = torch.cat([half, half.flip(-1)], -1)
    assert create("symmetry")(mirrored, [""]).item() == 0
    assert create("symmetry", axis="horizontal")(mirrored, [""]).item() < -0.01
    assert create("symmetry", axis="horizontal")(mirrored.mT, [""]).item() == 0


def test_colour_is_wanted_in_the_box_alone():
    blue_left = torch.cat([flat(0, 0, 1, width=4), flat(1, 1, 1, width=4)], -1)
    assert create("colour_target", colour="#0000ff", box=[0, 0, 0.5, 1])(blue_left, [""]).item() == 0
    assert create("colour_target", colour="#0000ff", box=[0.5, 0, 1, 1])(blue_left, [""]).item() == -2
    assert create("colour_target", colour="#0000ff")(blue_left, [""]).item() == -0.5


@pytest.mark.parametrize(
    "options",
    [{"colour": "blue"}, {"colour": "#0000ff", "box": [0, 0, 0, 1]}, {"colour": "#0000ff", "box": [0, 0, 2, 1]}],
)
def test_no_such_colour_or_box(options):
    with pytest.raises(RewardError, match=r"option '(colour|box)' must be"):
        check("colour_target", options)


def test_jpeg_both_ways():
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    small, large = (create(f"jpeg_{name}")(images, ["", ""]) for name in ("compressibility", "incompressibility"))
    assert torch.equal(small, -large)
    assert (large > 0).all()

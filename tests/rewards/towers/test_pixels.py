import numpy as np
import pytest
import torch
from PIL import Image

from rewards.towers.pixels import luma, squared


def images(height, width):
    rows, columns = torch.meshgrid(torch.arange(height) / 9, torch.arange(width) / 7, indexing="ij")
    return (0.5 + 0.4 * torch.stack([(rows + columns).sin(), rows.cos(), columns.sin()]))[None]


def as_pillow(image):
    return Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())


def difference(found, pillow):
    return (found[0] - torch.from_numpy(np.array(pillow)).permute(2, 0, 1) / 255).abs().max().item()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 61), (61, 90), (20, 33)])
def test_fits_are_those_of_pillow(height, width):
    given = images(height, width)
    pillow = as_pillow(given)
    short = min(height, width)
    crop = pillow.resize((32 * width // short, 32 * height // short), Image.Resampling.BICUBIC)
    left, top = (crop.width - 32) // 2, (crop.height - 32) // 2
    assert difference(squared(given, 32, "crop"), crop.crop((left, top, left + 32, top + 32))) < 0.01
    assert difference(squared(given, 32, "stretch"), pillow.resize((32, 32), Image.Resampling.BICUBIC)) < 0.01
    longest = max(height, width)
    inner = pillow.resize((round(32 * width / longest), round(32 * height / longest)), Image.Resampling.BICUBIC)
    padded = Image.new("RGB", (32, 32))
    padded.paste(inner, ((32 - inner.width) // 2, (32 - inner.height) // 2))
    assert difference(squared(given, 32, "pad"), padded) < 0.01


def test_an_image_of_the_right_size_is_left_as_it_is():
    given = images(32, 32)
    for fit in ("crop", "stretch", "pad"):
        assert torch.equal(squared(given, 32, fit), given)


def test_what_is_outside_the_middle_does_not_count():
    given = images(32, 64).requires_grad_()
    (gradient,) = torch.autograd.grad(squared(given, 32, "crop").sum(), given)
    assert gradient[..., :16].abs().max() == 0
    assert gradient[..., 16:48].min() == 1


def test_luma_of_grey_is_its_value():
    assert luma(torch.full((1, 3, 2, 2), 0.3)).flatten().tolist() == pytest.approx([0.3] * 4)

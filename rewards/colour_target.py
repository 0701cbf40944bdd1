"""A colour wanted somewhere in the image: a reward without weights."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor


class ColourTarget:
    """Minus the squared distance of a region's mean colour to a wanted one, from -3 to 0. The prompts do not matter.

    Args:
        colour: as "#rrggbb".
        box: the region: left, top, right and bottom as fractions of the image's width and height.

    Raises:
        ValueError: no such colour, or a box that is none.
    """

    differentiable = True
    licence = "Apache-2.0"

    def __init__(self, *, colour: str, box: Sequence[float] = (0.0, 0.0, 1.0, 1.0)) -> None:
        self.check_use((), colour=colour, box=box)
        self._colour = torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        self._box = tuple(box)

    @classmethod
    def check_use(
        cls, prompts: Sequence[str], *, colour: str, box: Sequence[float] = (0.0, 0.0, 1.0, 1.0), **_: object
    ) -> None:
        """Refuse a colour or a box that is none."""
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            raise ValueError(f"option 'colour' must be a colour such as '#3366ff', got {colour!r}")
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ValueError(
                "option 'box' must be [left, top, right, bottom], 0 <= left < right <= 1 and 0 <= top < bottom <= 1; "
                f"got {list(box)}"
            )

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]; at least one pixel is looked at."""
        height, width = images.shape[-2:]
        left, top, right, bottom = self._box
        rows = slice(int(top * height), max(int(top * height) + 1, round(bottom * height)))
        columns = slice(int(left * width), max(int(left * width) + 1, round(right * width)))
        return -(images[..., rows, columns].mean((2, 3)) - self._colour.to(images)).square().sum(1)

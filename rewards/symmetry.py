"""How much an image is its own mirror image: a reward without weights."""

from typing import Literal

from torch import Tensor


class Symmetry:
    """Minus the mean squared difference of an image and its mirror image, from -1 to 0. The prompts do not matter.

    Args:
        axis: of the mirror. The left half of a face mirrors the right one at the vertical axis.
    """

    differentiable = True
    licence = "Apache-2.0"

    def __init__(self, *, axis: Literal["vertical", "horizontal"] = "vertical") -> None:
        self._dimension = -1 if axis == "vertical" else -2

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]."""
        return -(images - images.flip(self._dimension)).square().mean((1, 2, 3))

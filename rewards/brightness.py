"""How bright an image is: a reward without weights."""

from torch import Tensor

from rewards.towers.pixels import luma


class Brightness:
    """Mean luma (Rec. 601), 0 for black to 1 for white. The prompts do not matter."""

    differentiable = True
    licence = "Apache-2.0"

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]."""
        return luma(images).mean((1, 2))

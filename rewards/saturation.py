"""How strong an image's colours are: a reward without weights."""

from torch import Tensor


class Saturation:
    """Mean chroma, the largest minus the smallest of a pixel's channels: 0 for grey, 1 for pure colours everywhere.

    Chroma and not HSV's saturation, chroma / max, which has no limit at black. The prompts do not matter.
    """

    differentiable = True
    licence = "Apache-2.0"

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]."""
        return (images.amax(1) - images.amin(1)).mean((1, 2))

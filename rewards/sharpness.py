"""How sharp an image is: the variance of its Laplacian, a measure of focus.

Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
"""

import torch
from torch import Tensor, nn

from rewards.towers.pixels import luma


class Sharpness:
    """Variance of the Laplacian of the luma, at least 0; 0 for a flat image. The prompts do not matter.

    Noise is sharp, too: weigh it low, or give it a cap.
    """

    differentiable = True
    licence = "Apache-2.0"

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], of 3 x 3 pixels or more."""
        kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).to(images)
        laplacian = nn.functional.conv2d(luma(images)[:, None], kernel[None, None])
        return laplacian.var((1, 2, 3), correction=0)

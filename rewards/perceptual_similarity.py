"""How alike an image and another one look: distances of feature maps at several depths, as LPIPS measures them.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018 (1801.03924), with
EfficientNet-Lite0 in place of AlexNet, and without weights learned for its channels.

    score(x) = - mean over layers l of  mean over positions of |u_l(x) - u_l(r)|^2

where u_l is the feature map of layer l with every position's channels scaled to length 1, and r the reference.
"""

import torch
from torch import Tensor, nn

from rewards.towers.near_image import LAYERS, NearImage


class PerceptualSimilarity(NearImage):
    """Minus the perceptual distance from the image of a file, from -4 to 0. The prompts do not matter."""

    packages = "envs/emoji.txt"

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]."""
        pairs = zip(self._described(images), self._reference, strict=True)
        return -torch.stack([(x - r).square().sum(1).mean((1, 2)) for x, r in pairs]).mean(0)

    def _described(self, images: Tensor) -> list[Tensor]:
        """u_l of each layer, [B, C, h, w]."""
        return [nn.functional.normalize(found, dim=1) for found in self._features.maps(images, LAYERS)]

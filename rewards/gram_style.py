"""How near an image's style is to that of another image: Gram matrices of image features.

Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016, with EfficientNet-Lite0
in place of VGG.

Notation
    F_l    feature map of layer l, [C, h w]                features.py
    G_l    F_l F_l^T / (h w): which features go together, wherever they are
    s      the style image

    score(x) = - mean over l of |G_l(x) - G_l(s)|^2 / |G_l(s)|^2        (Frobenius norms)

0 for the style image itself; an image without any features scores -1, and one with other strong ones less.
"""

from typing import ClassVar

import torch
from torch import Tensor

from rewards.towers.near_image import LAYERS, NearImage


class GramStyle(NearImage):
    """Minus the distance of styles, at most 0. The prompts do not matter."""

    packages = "envs/emoji.txt"
    old_options: ClassVar[dict[str, str]] = {"picture": "image"}

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, float32 [B, 3, H, W] in [0, 1]."""
        parts = [
            (gram - style).square().sum((1, 2)) / style.square().sum()
            for gram, style in zip(self._described(images), self._reference, strict=True)
        ]
        return -torch.stack(parts).mean(0)

    def _described(self, images: Tensor) -> list[Tensor]:
        """G_l of each layer, [B, C, C]."""
        flat = (found.flatten(2) for found in self._features.maps(images, LAYERS))
        return [F_l @ F_l.mT / F_l.shape[2] for F_l in flat]

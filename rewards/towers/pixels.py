"""What a network's processor does to images, on tensors and with gradients.

The processors of transformers want torchvision and give no gradients. Resizing here is bicubic and antialiased, as
Pillow does it; Pillow rounds to 8 bits in between, so values differ by about 1e-3.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

Fit = Literal["crop", "stretch", "pad"]
"""How an image becomes square: its middle is cut out, it is stretched, or it gets a black border."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
"""Mean and standard deviation of SigLIP's processor."""


def luma(images: Tensor) -> Tensor:
    """Luma of Rec. 601, [B, H, W], of images [B, 3, H, W]."""
    red, green, blue = images.unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Images of another size, still in [0, 1]: bicubic curves overshoot, and are clamped."""
    if images.shape[-2:] == (height, width):
        return images
    return nn.functional.interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def squared(images: Tensor, size: int, fit: Fit = "crop") -> Tensor:
    """Square images, [B, 3, size, size], of images [B, 3, H, W] in [0, 1].

    Args:
        images: of any size.
        size: side in pixels.
        fit: "crop": the shortest side becomes `size`, and the middle is cut out (CLIP); "stretch": both sides become
            `size` (SigLIP); "pad": the longest side becomes `size`, and black is added on both sides (HPSv2).
    """
    if fit == "stretch":
        return resized(images, size, size)
    sides = images.shape[-2:]
    # The other side as the processors have it: CLIP's rounds down, that of HPSv2 to the nearest.
    if fit == "crop":
        height, width = (size * side // min(sides) for side in sides)
    else:
        height, width = (max(1, round(size * side / max(sides))) for side in sides)
    images = resized(images, height, width)
    if fit == "crop":
        top, left = (height - size) // 2, (width - size) // 2
        return images[..., top : top + size, left : left + size]
    top, left = (size - height) // 2, (size - width) // 2
    return nn.functional.pad(images, (left, size - width - left, top, size - height - top))


def normalized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(images - mean) / std, by channel."""
    return (images - torch.tensor(mean).to(images).view(3, 1, 1)) / torch.tensor(std).to(images).view(3, 1, 1)


def prepared(images: Tensor, size: int, fit: Fit, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images as a network takes them: square, then normalised."""
    return normalized(squared(images, size, fit), mean, std)


Preparation = Callable[[Tensor, int], Tensor]
"""Images [B, 3, H, W] in [0, 1] and the network's size in pixels -> what the network takes."""

AS_CLIP: Preparation = partial(prepared, fit="crop", mean=CLIP_MEAN, std=CLIP_STD)
AS_HPS: Preparation = partial(prepared, fit="pad", mean=CLIP_MEAN, std=CLIP_STD)
AS_SIGLIP: Preparation = partial(prepared, fit="stretch", mean=HALF, std=HALF)

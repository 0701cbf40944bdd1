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

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rewards import features
from rewards.features import FeatureSettings, ImageFeatures

LAYERS = (1, 4, 6, 12)
"""The stem, and the last block before each of three halvings: maps of 1/2, 1/4, 1/8 and 1/16 of the size."""


class GramStyle:
    """Minus the distance of styles, at most 0. The prompts do not matter.

    Args:
        image: file of the style image, anything Pillow reads; transparency becomes white.
        size: side in pixels at which images are looked at, and the style image is cut square to.
        device: where to compute.

    Raises:
        ValueError: the image cannot be read, or the size is not a multiple of 32.
        ImportError: the packages of the extra `emoji` are missing.
    """

    differentiable = True
    packages = "envs/emoji.txt"
    licence = "Apache-2.0"
    old_options: ClassVar[dict[str, str]] = {"picture": "image"}

    def __init__(self, *, image: Path, size: int = 128, device: str = "cpu") -> None:
        self.check_use((), image=image, size=size)
        self.device = device
        self._features = ImageFeatures(FeatureSettings(size=size), device)
        pixels = _pixels(image, size)
        style = torch.tensor(pixels).to(device).permute(2, 0, 1)[None].float() / 255
        digest = hashlib.sha256(pixels.tobytes() + features.weights_path().read_bytes())
        self.weights_hash = digest.hexdigest()
        with torch.no_grad():
            self._style = self._grams(style)

    @classmethod
    def check_use(cls, prompts: Sequence[str], *, image: Path, size: int = 128, **_: object) -> None:
        """Refuse an image that cannot be read, or a size that the network cannot halve five times."""
        if size < 32 or size % 32:
            raise ValueError(f"option 'size' must be a multiple of 32, got {size}")
        _pixels(image, size)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, float32 [B, 3, H, W] in [0, 1]."""
        parts = [
            (gram - style).square().sum((1, 2)) / style.square().sum()
            for gram, style in zip(self._grams(images), self._style, strict=True)
        ]
        return -torch.stack(parts).mean(0)

    def _grams(self, images: Tensor) -> list[Tensor]:
        """G_l of each layer, [B, C, C]."""
        flat = (found.flatten(2) for found in self._features.maps(images, LAYERS))
        return [F_l @ F_l.mT / F_l.shape[2] for F_l in flat]


def _pixels(image: Path, size: int) -> np.ndarray:
    """The style image's square middle, uint8 [size, size, 3]."""
    try:
        with Image.open(image.expanduser()) as file:
            opened = file.convert("RGBA")
    except FileNotFoundError:
        raise ValueError(f"option 'image': there is no file {str(image)!r}; give the path of an image") from None
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"option 'image': {str(image)!r} cannot be read as an image: {error}") from None
    white = Image.new("RGBA", opened.size, "white")
    flat = Image.alpha_composite(white, opened).convert("RGB")
    side = min(flat.size)
    left, top = (flat.width - side) // 2, (flat.height - side) // 2
    return np.asarray(flat.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)))

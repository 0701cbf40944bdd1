"""What rewards have in common that compare feature maps of images with those of one image from a file."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewards import features
from rewards.features import FeatureSettings, ImageFeatures
from rewards.towers.references import open_image, read_square

LAYERS = (1, 4, 6, 12)
"""Of EfficientNet-Lite0: the stem, and the last block before each of three halvings: maps of 1/2, 1/4, 1/8 and 1/16 of
the size."""


class NearImage(ABC):
    """Base of such a reward, which says in `_described` what of its feature maps is compared.

    Args:
        image: file of the image to compare with, anything Pillow reads; transparency becomes white.
        size: side in pixels at which images are looked at, and that image is cut square to.
        device: where to compute.

    Raises:
        ValueError: the image cannot be read, or the size is not a multiple of 32.
        ImportError: the packages of the extra `emoji` are missing.
    """

    differentiable = True
    licence = "Apache-2.0"

    def __init__(self, *, image: Path, size: int = 128, device: str = "cpu") -> None:
        self.check_use((), image=image, size=size)
        self.device = device
        self._features = ImageFeatures(FeatureSettings(size=size), device)
        reference = read_square(image, size)
        pixels = (reference[0].permute(1, 2, 0) * 255).round().byte().numpy()
        self.weights_hash = hashlib.sha256(pixels.tobytes() + features.weights_path().read_bytes()).hexdigest()
        with torch.no_grad():
            self._reference = self._described(reference.to(device))

    @classmethod
    def check_use(cls, prompts: Sequence[str], *, image: Path, size: int = 128, **_: object) -> None:
        """Refuse an image that cannot be read, or a size that the network cannot halve five times."""
        if size < 32 or size % 32:
            raise ValueError(f"option 'size' must be a multiple of 32, got {size}")
        try:
            open_image(image)
        except ValueError as error:
            raise ValueError(f"option 'image': {error}") from None

    @abstractmethod
    def _described(self, images: Tensor) -> list[Tensor]:
        """What is compared, by layer, each [B, ...], of images [B, 3, H, W] in [0, 1]."""

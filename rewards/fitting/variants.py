"""Slightly changed images, which a head should score alike."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Variant = Callable[[Tensor], Tensor]
"""Images [N, 3, H, W] in [0, 1] to changed ones."""


def as_is(images: Tensor) -> Tensor:
    """The images themselves."""
    return images


def flipped(images: Tensor) -> Tensor:
    """Mirrored, left for right."""
    return images.flip(-1)


def shifted(images: Tensor) -> Tensor:
    """Moved right by three pixels and down by two; the border repeats."""
    height, width = images.shape[-2:]
    return nn.functional.pad(images, (3, 0, 2, 0), mode="replicate")[..., :height, :width]


def blurred(sigma: float) -> Variant:
    """Gaussian blur of `sigma` pixels."""

    def apply(images: Tensor) -> Tensor:
        radius = max(1, round(3 * sigma))
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
        kernel = torch.softmax(-offsets.square() / (2 * sigma**2), 0).expand(3, 1, 1, -1)
        padded = nn.functional.pad(images, (radius,) * 4, mode="replicate")
        rows = nn.functional.conv2d(padded, kernel, groups=3)
        return nn.functional.conv2d(rows, kernel.transpose(2, 3), groups=3)

    return apply


def noisy(sigma: float) -> Variant:
    """Gaussian noise of standard deviation `sigma`, always the same for as many images."""

    def apply(images: Tensor) -> Tensor:
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        return (images + sigma * noise).clamp(0, 1)

    return apply

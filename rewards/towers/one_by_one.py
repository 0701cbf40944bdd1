"""Black boxes that look at one image at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def score_each(images: Tensor, prompts: Sequence[str], score: Callable[[np.ndarray, str], float | None]) -> Tensor:
    """Scores, float32 [B], on the images' device.

    Args:
        images: [B, 3, H, W] in [0, 1].
        prompts: B prompts.
        score: an image, uint8 [H, W, 3], and its prompt -> score; None: there is none.

    Returns:
        NaN, a missing score, where there is none, and for images with non-finite pixels, which are not looked at.
    """
    found = [
        score(to_uint8(image), prompt) if torch.isfinite(image).all() else None
        for image, prompt in zip(images, prompts, strict=True)
    ]
    return torch.tensor([float("nan") if value is None else value for value in found], device=images.device)


def to_uint8(image: Tensor) -> np.ndarray:
    """Pixels as files have them, uint8 [H, W, 3], of an image [3, H, W] in [0, 1]."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte()
    return pixels.permute(1, 2, 0).cpu().numpy()

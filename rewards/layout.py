"""Where in the image the drawing is: a reward for layout, which is settled in the first sampling steps.

Notation
    x      image, [3, H, W] in [0, 1]
    d      darkness, 1 - mean of the channels, [H, W]
    m      ink, d^2 / (d^2 + h^2): 0 on white paper, 1/2 at d = h, near 1 wherever something is drawn
    p      position of a pixel along the wanted direction, from -1 at the far edge to +1 at the near one

    score = sum(m p) / sum(m)

the centre of mass of the ink. Because m saturates, how dark the drawing is hardly counts, only where it is: its
gradient is at the edges of the drawing, none on white paper. Because of the division, more ink at the same place
changes nothing.
"""

import hashlib
from typing import Literal

import torch
from torch import Tensor

_HALF = 0.1
"""h, the darkness that counts as half ink."""

_EMPTY = 1e-3
"""Mean ink that is added without a place, so that an almost white page scores about 0, with a small gradient."""


class Layout:
    """Centre of mass of the ink towards one side, in [-1, 1]; 0 in the middle. The prompts do not matter.

    Args:
        towards: the side of the image where the ink should be.
    """

    differentiable = True
    licence = "Apache-2.0"

    def __init__(self, *, towards: Literal["top", "bottom", "left", "right"] = "top") -> None:
        if towards not in ("top", "bottom", "left", "right"):
            raise ValueError(f"towards must be top, bottom, left or right, got {towards!r}")
        self._dimension = -2 if towards in ("top", "bottom") else -1
        self._sign = -1.0 if towards in ("top", "left") else 1.0
        self.weights_hash = hashlib.sha256(f"layout towards={towards}".encode()).hexdigest()

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, float32 [B, 3, H, W] in [0, 1]."""
        darkness = (1 - images.mean(dim=1)).square()
        ink = darkness / (darkness + _HALF**2)
        size = ink.shape[self._dimension]
        # Centres of the pixels: the edges of the image are at -1 and +1.
        p = self._sign * (2 * torch.arange(size, device=images.device) + 1 - size) / size
        p = p[:, None] if self._dimension == -2 else p
        return (ink * p).mean(dim=(-2, -1)) / (ink.mean(dim=(-2, -1)) + _EMPTY)

"""How small an image gets as a JPEG: a black-box reward.

From DDPO (Black et al. 2023, arXiv 2305.13301, section 4.1), which trains on it by policy gradients.
"""

import hashlib
from io import BytesIO

import numpy as np
from PIL import Image
from torch import Tensor

from rewards.towers.one_by_one import score_each


class JpegCompressibility:
    """Minus the size of the JPEG file, in kB (1,000 bytes).

    Args:
        quality: of the JPEG, 1 to 95. DDPO's is 95.

    Raises:
        ValueError: a quality that JPEG does not have.
    """

    differentiable = False
    licence = "Apache-2.0"

    def __init__(self, *, quality: int = 95) -> None:
        if not 1 <= quality <= 95:
            raise ValueError(f"quality must be 1 to 95, got {quality}")
        self._quality = quality
        self.weights_hash = hashlib.sha256(f"jpeg_compressibility quality={quality}".encode()).hexdigest()

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], in kB, all negative; NaN for an image with non-finite pixels. Prompts do not matter."""
        return score_each(images, prompts, self._score)

    def _score(self, pixels: np.ndarray, _: str) -> float:
        file = BytesIO()
        Image.fromarray(pixels).save(file, format="JPEG", quality=self._quality)
        return -len(file.getvalue()) / 1000

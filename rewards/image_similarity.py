"""How near an image is to reference images, in the features of a network."""

from torch import Tensor

from rewards.towers.image_features import ToReferences


class ImageSimilarity(ToReferences):
    """Mean cosine of an image's features with those of reference images, in [-1, 1]. The prompts do not matter."""

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]."""
        return self._tower.images(images) @ self._references.mean(0)

"""How unlike one another a batch's images are: a counterweight to rewards that make them all the same."""

from torch import Tensor

from rewards.towers.image_features import OnFeatures
from rewards.towers.whole_batch import mean_over_others, over_valid


class Diversity(OnFeatures):
    """One minus the mean cosine of an image's features with those of the others of its batch; 0 where all are alike."""

    batchwise = True

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]; NaN in a batch of one."""
        return over_valid(self._tower.images(images), lambda u: 1 - mean_over_others(u @ u.T))

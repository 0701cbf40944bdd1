"""How near a batch's images are to reference images in means and spreads: a Frechet distance with diagonal covariances.

Dowson & Landau 1982; FID (Heusel et al., 1706.08500) has full covariances, which a batch is too small for.

    d^2 = |mean(u) - mean(r)|^2 + |std(u) - std(r)|^2

by coordinates of the features, u of the batch and r of the references.
"""

import torch
from torch import Tensor

from rewards.towers.image_features import ToReferences
from rewards.towers.whole_batch import over_valid


class Frechet(ToReferences):
    """Minus the diagonal Frechet distance of its batch from reference images, at most 0; the same for all of it."""

    batchwise = True
    min_references = 2

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]; NaN in a batch of one."""
        return over_valid(self._tower.images(images), self._scores)

    def _scores(self, features: Tensor) -> Tensor:
        means = features.mean(0) - self._references.mean(0)
        spreads = _spread(features) - _spread(self._references)
        return -(means.square().sum() + spreads.square().sum()).expand(len(features))


def _spread(features: Tensor) -> Tensor:
    """Standard deviation by coordinate, [D]; where all are equal it has no gradient, but for the tiny number."""
    return torch.sqrt(features.var(0) + 1e-12)

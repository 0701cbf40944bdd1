"""Scores of whole batches, image by image: what each adds to the batch's."""

from collections.abc import Callable

import torch
from torch import Tensor


def over_valid(features: Tensor, scores_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Scores of those images whose features are finite, among themselves; NaN for others, and for one that is alone.

    Args:
        features: [B, D].
        scores_of: features [n, D] of n >= 2 images -> scores [n].

    Returns:
        Scores, [B].
    """
    valid = features.isfinite().all(1)
    scores = features.new_full((len(features),), torch.nan)
    if valid.sum() < 2:
        return scores + 0 * features.sum(1)  # a score that is missing, with a graph
    return scores.masked_scatter(valid, scores_of(features[valid]))


def mean_over_others(pairs: Tensor) -> Tensor:
    """Mean of each row of [n, n] without its diagonal, [n]."""
    return (pairs.sum(1) - pairs.diagonal()) / (len(pairs) - 1)

"""Gradients of several rewards into one where they disagree, image by image.

Notation
    g_i    weighted image gradient of reward i at one image; [B, ...] for a batch, all sums are an image's own
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def weighted_sum(gradients: Sequence[Tensor]) -> Tensor:
    """sum_i g_i: the gradient of the weighted sum of the rewards."""
    total = torch.zeros_like(gradients[0])
    for g in gradients:
        total += g
    return total


def pcgrad(gradients: Sequence[Tensor]) -> Tensor:
    """sum_i of g_i without what opposes others: for each j with g_i . g_j < 0, g_i -= (g_i . g_j) g_j / |g_j|^2.

    "Gradient Surgery for Multi-Task Learning" (Yu et al. 2020, arXiv 2001.06782, algorithm 1), whose random order of
    the j is here that of the list, so that a run can be repeated; for two rewards there is but one.
    """
    total = torch.zeros_like(gradients[0])
    for i, g in enumerate(gradients):
        for j, other in enumerate(gradients):
            if i != j:
                g = g - _over(dot(g, other).clamp(max=0), dot(other, other), other) * other
        total += g
    return total


def mgda(gradients: Sequence[Tensor]) -> Tensor:
    """2 (c g_1 + (1 - c) g_2), the shortest of the convex combinations: it goes up for both, or not at all.

    c = clip( (g_2 - g_1) . g_2 / |g_1 - g_2|^2, 0, 1 ): "Multi-Task Learning as Multi-Objective Optimization" (Sener
    and Koltun 2018, arXiv 1810.04650, equation 4), after Desideri 2012. Twice, so that equal gradients give their sum.
    Where only one reward has a gradient, as at images that are above the other's cap, it is that one.

    Args:
        gradients: two.
    """
    one, two = gradients
    c = _over(dot(two - one, two), dot(one - two, one - two), one).clamp(0, 1)
    both = (dot(one, one) > 0) & (dot(two, two) > 0)
    return torch.where(_wide(both, one), 2 * (c * one + (1 - c) * two), one + two)


COMBINATIONS: Mapping[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "sum": weighted_sum,
    "pcgrad": pcgrad,
    "mgda": mgda,
}
"""By the names that settings have for them."""


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of each image, [B]."""
    return (a.double() * b.double()).flatten(1).sum(dim=1)


def _over(numerator: Tensor, denominator: Tensor, like: Tensor) -> Tensor:
    """Quotients of each image, 0 over 0 being 0, to be multiplied with a tensor like that."""
    return _wide(torch.where(denominator > 0, numerator / denominator.clamp(min=1e-300), 0.0), like).to(like.dtype)


def _wide(x: Tensor, like: Tensor) -> Tensor:
    return x.reshape(-1, *(1 for _ in like.shape[1:]))

"""Image gradients of a reward averaged over small changes of each image.

Notation
    x, R(x)    an image and its score;  n  images that the mean is over
    T_k x      x moved by a random whole number of pixels, its edge repeated;  e_k  Gaussian noise
    g          (1/n) (dR(x)/dx + sum over k = 1 .. n-1 of dR(T_k x + e_k)/dx)

A network's gradient at an image is mostly noise: it differs between two images that look the same, and following it
pleases this network alone. What gradients at changes that mean nothing have in common is left by their mean, which is
the gradient of R smoothed by those changes (SmoothGrad, Smilkov et al. 2017, arXiv 1706.03825, takes Gaussian noise;
here the image itself is among the n, as its own score and gradient come together).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rewards.registry import Reward
from rewards.scoring import gradient_of_changed, score_with_gradient
from rewards.terms import Smoothing


def score_with_smoothed_gradient(
    reward: Reward, images: Tensor, prompts: list[str], smoothing: Smoothing, seeds: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """`score_with_gradient` with the gradient g.

    The copies are made and scored one after the other: n times the time, and the memory of one.

    Args:
        reward: any reward.
        images: as of `score_with_gradient`.
        prompts: B prompts.
        smoothing: how far copies are from their image.
        seeds: B numbers, each of which fixes its image's copies, whatever the batch.

    Returns:
        As `score_with_gradient`. The scores are those of the images themselves.

    Raises:
        ValueError: as `score_with_gradient`; another number of seeds than of images.
    """
    scores, total = score_with_gradient(reward, images, prompts)
    if total is None:
        return scores, None
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(smoothing.copies - 1):
        total += gradient_of_changed(reward, images, prompts, lambda x: changed(x, smoothing, draws))[1]
    return scores, total / smoothing.copies


def changed(images: Tensor, smoothing: Smoothing, draws: Sequence[torch.Generator]) -> Tensor:
    """T_k x + e_k of each image, with its graph.

    Args:
        images: [B, ..., H, W].
        smoothing: how far from them.
        draws: one generator an image, on the CPU, whose next numbers make the copy.

    Raises:
        ValueError: another number of generators than of images.
    """
    return torch.stack([_changed(x, smoothing, generator) for x, generator in zip(images, draws, strict=True)])


def _changed(x: Tensor, smoothing: Smoothing, generator: torch.Generator) -> Tensor:
    if smoothing.shifts:
        for dimension, by in zip((-2, -1), _shift(smoothing.shifts, generator), strict=True):
            places = torch.arange(x.shape[dimension], device=x.device) + by
            x = x.index_select(dimension, places.clamp(0, x.shape[dimension] - 1))
    if smoothing.noise:
        x = x + smoothing.noise * torch.randn(x.shape, generator=generator).to(x.device)
    return x


def _shift(most: int, generator: torch.Generator) -> list[int]:
    return torch.randint(-most, most + 1, (2,), generator=generator).tolist()

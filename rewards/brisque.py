"""BRISQUE: how natural an image's local statistics are, without a reference. Mittal, Moorthy and Bovik, IEEE TIP 2012.

Notation
    n(i, j)    luma less its local mean, over its local standard deviation + 1/255 (7 x 7 Gaussian, sigma 7/6)
    features   at two scales, of n: shape and variance of a generalised Gaussian; of the products of neighbours in four
               directions: shape, mean, left and right variance of an asymmetric one. 36 in all
    score      minus the support vector regression of the features, which gives 0 for the best and 100 for the worst
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rewards.towers.checkpoint import describe
from rewards.towers.one_by_one import score_each
from rewards.towers.pixels import luma
from rewards.towers.svr import SupportVectorRegression, read_ranges

_SHAPES = torch.arange(0.2, 10.001, 0.001, dtype=torch.float64)
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


class Brisque:
    """Minus BRISQUE, from about -100, the worst, to 0. The prompts do not matter.

    Args:
        model: `allmodel` of the LIVE laboratory's release, a model of libsvm as text.
        ranges: `allrange` of the same, the features' ranges as `svm-scale` writes them.

    Raises:
        OSError: a file is not there.
        ValueError: it is of another kind.
    """

    differentiable = False
    licence = "Apache-2.0"  # of this code; the weights are the LIVE laboratory's

    def __init__(self, *, model: Path, ranges: Path) -> None:
        self._regression = SupportVectorRegression(model.expanduser())
        self._low, self._high = read_ranges(ranges.expanduser(), 36)
        self.checkpoints = (describe(str(model), model.expanduser()), describe(str(ranges), ranges.expanduser()))

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, [B, 3, H, W] in [0, 1], of 8 x 8 pixels or more."""
        return score_each(images, prompts, self._score)

    def _score(self, pixels: np.ndarray, _: str) -> float | None:
        found = features(torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255)
        if not found.isfinite().all():
            return None  # an image without any structure has no statistics
        return -self._regression(2 * (found - self._low) / (self._high - self._low) - 1)


def features(image: Tensor) -> Tensor:
    """The 36 features, float64, of an image, float64 [1, 3, H, W] in [0, 1]."""
    grey = luma(image)[:, None]
    half = nn.functional.interpolate(grey, scale_factor=0.5, mode="bicubic")
    return torch.stack([part for scale in (grey, half) for part in _of_scale(scale)])


def _of_scale(grey: Tensor) -> Iterator[Tensor]:
    n = normalised(grey)[0, 0]
    shape, left, right = fit(n)
    yield shape
    yield (left**2 + right**2) / 2
    for down, across in _NEIGHBOURS:
        shape, left, right = fit(_products(n, down, across))
        spread = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
        yield shape
        yield (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape)) * spread
        yield left**2
        yield right**2


def normalised(grey: Tensor) -> Tensor:
    """n, of luma [1, 1, H, W]; beyond the edge everything is 0."""
    at = torch.arange(-3.0, 4.0, dtype=grey.dtype)
    line = torch.exp(-at.square() / (2 * (7 / 6) ** 2))
    kernel = torch.outer(line, line)[None, None] / line.sum() ** 2
    mean = nn.functional.conv2d(grey, kernel, padding=3)
    variance = nn.functional.conv2d(grey.square(), kernel, padding=3) - mean.square()
    return (grey - mean) / (variance.abs().sqrt() + 1 / 255)


def fit(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, left and right deviation of an asymmetric generalised Gaussian, by moments (Lasmar et al. 2009)."""
    left, right = x[x < 0].square().mean().sqrt(), x[x >= 0].square().mean().sqrt()
    g = left / right
    ratio = x.abs().mean().square() / x.square().mean() * (g**3 + 1) * (g + 1) / (g**2 + 1).square()
    of_shape = torch.exp(2 * torch.lgamma(2 / _SHAPES) - torch.lgamma(1 / _SHAPES) - torch.lgamma(3 / _SHAPES))
    return _SHAPES[(of_shape - ratio).abs().argmin()], left, right


def _products(n: Tensor, down: int, across: int) -> Tensor:
    """Of each pixel and its neighbour, where it has one."""
    first, second = n[: n.shape[0] - down], n[down:]
    if across > 0:
        return first[:, :-across] * second[:, across:]
    return first[:, -across:] * second[:, :across] if across else first * second

"""Distances between images and between sets of images, from feature vectors and pixels.

Notation
    A      n feature vectors with their mean taken off, one a row: [n, d]
    C      their covariance, A^T A / (n - 1)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]


def cosine_distances(a: Array, b: Array) -> Array:
    """1 - cos of each row of `a` [n, d] and the same row of `b`, [n]: 0 for one direction, 2 for opposite ones."""
    return 1 - (_units(a) * _units(b)).sum(axis=1)


def mean_pairwise_distance(vectors: Array) -> float:
    """Mean cosine distance of two different rows of `vectors` [n, d]; NaN for fewer than two rows.

    The sum of all pairs' cosines is |sum of the unit vectors|^2, less n for each vector with itself.
    """
    n = len(vectors)
    if n < 2:
        return float("nan")
    total = _units(vectors).sum(axis=0)
    return float(1 - (total @ total - n) / (n * (n - 1)))


def pixel_distance(a: Image.Image, b: Image.Image) -> float:
    """Root mean square difference of two images' values in [0, 1]; NaN if their sizes differ."""
    if a.size != b.size:
        return float("nan")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return float(np.sqrt(np.mean(difference**2)) / 255)


def frechet_distance(a: Array, b: Array) -> float:
    """Squared Frechet distance of two normal distributions fitted to vectors (Heusel et al. 2017, eq. 6).

        |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

    The trace of the root is the sum of the singular values of A_a A_b^T / sqrt((n_a - 1)(n_b - 1)), because
    C_a C_b and (A_a A_b^T)(A_a A_b^T)^T / ((n_a - 1)(n_b - 1)) have the same eigenvalues other than 0. That needs no
    root of a matrix, and fewer vectors than features do no harm to it.

    With few vectors the fitted covariances are too small in most directions and too large in some, so that the distance
    of two samples of one distribution is positive; it falls like 1/n (Chong & Forsyth 2020). Compare distances
    that were measured with the same numbers of vectors only.

    Args:
        a: n_a vectors [n_a, d], two or more.
        b: n_b vectors [n_b, d], two or more.

    Raises:
        ValueError: fewer than two vectors.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance takes two vectors or more; got {len(a)} and {len(b)}")
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    # R of A = Q R has the same products, and at most d rows.
    root_a, root_b = _root(a - mean_a), _root(b - mean_b)
    of_means = ((mean_a - mean_b) ** 2).sum()
    traces = (root_a**2).sum() + (root_b**2).sum()
    of_root = np.linalg.svdvals(root_a @ root_b.T).sum()
    # Rounding can take the distance of equal sets below zero.
    return float(max(0.0, of_means + traces - 2 * of_root))


def _root(centred: Array) -> Array:
    """R of A = Q R over sqrt(n - 1)."""
    root: Array = np.linalg.qr(centred).R / np.sqrt(len(centred) - 1)
    return root


def _units(vectors: Array) -> Array:
    """Rows with length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Array = vectors / np.where(lengths > 0, lengths, 1.0)
    return units

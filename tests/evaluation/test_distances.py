"""Distances against closed forms."""

import math

import numpy as np
import pytest
from PIL import Image

from sdo_ray.evaluation.distances import cosine_distances, frechet_distance, mean_pairwise_distance, pixel_distance


def exact_sample(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Vectors whose sample mean and covariance are exactly these."""
    raw = np.random.default_rng(seed).normal(size=(count, len(mean)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(raw.T)))).T
    return mean + white @ np.linalg.cholesky(covariance).T


def random_covariance(size: int, seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root @ root.T + 0.1 * np.eye(size)


def test_cosine_distance_of_known_angles() -> None:
    a = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [3.0, 0.0]])
    b = np.array([[5.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    assert cosine_distances(a, b) == pytest.approx([0.0, 1.0, 1 - math.sqrt(0.5), 2.0])


def test_mean_pairwise_distance_is_that_of_all_pairs() -> None:
    vectors = np.random.default_rng(0).normal(size=(7, 5))
    pairs = [(i, j) for i in range(7) for j in range(i)]
    each = cosine_distances(vectors[[i for i, _ in pairs]], vectors[[j for _, j in pairs]])
    assert mean_pairwise_distance(vectors) == pytest.approx(each.mean())
    assert mean_pairwise_distance(np.ones((3, 4))) == pytest.approx(0)
    assert math.isnan(mean_pairwise_distance(vectors[:1]))


def test_pixel_distance() -> None:
    black, white = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "white")
    assert pixel_distance(black, black) == 0
    assert pixel_distance(black, white) == 1
    assert pixel_distance(black, Image.new("RGB", (4, 4), (51, 51, 51))) == pytest.approx(0.2)
    assert math.isnan(pixel_distance(black, Image.new("RGB", (8, 8))))


def test_frechet_distance_of_normals_in_one_dimension() -> None:
    """(m_a - m_b)^2 + (s_a - s_b)^2."""
    a = exact_sample(np.array([1.0]), np.array([[4.0]]), 50, seed=0)
    b = exact_sample(np.array([-2.0]), np.array([[0.25]]), 70, seed=1)
    assert frechet_distance(a, b) == pytest.approx(9 + 1.5**2)


def test_frechet_distance_of_normals_whose_covariances_commute() -> None:
    """|m_a - m_b|^2 + sum_i (sqrt(lambda_i) - sqrt(mu_i))^2, for a common eigenbasis."""
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    lambdas, mus = np.array([4.0, 1.0, 0.5, 0.1]), np.array([1.0, 1.0, 2.0, 3.0])
    means = np.array([1.0, 0, 0, 0]), np.array([0, 2.0, 0, 0])
    a = exact_sample(means[0], basis @ np.diag(lambdas) @ basis.T, 60, seed=3)
    b = exact_sample(means[1], basis @ np.diag(mus) @ basis.T, 90, seed=4)
    assert frechet_distance(a, b) == pytest.approx(5 + ((np.sqrt(lambdas) - np.sqrt(mus)) ** 2).sum())


def test_frechet_distance_of_any_normals_is_the_formula() -> None:
    """Against the eigenvalues of the product of the covariances, which the code avoids."""
    covariances = random_covariance(6, 5), random_covariance(6, 6)
    means = np.random.default_rng(7).normal(size=(2, 6))
    a, b = (exact_sample(m, c, 40, seed=8 + i) for i, (m, c) in enumerate(zip(means, covariances, strict=True)))
    of_root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real).sum()
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1]) - 2 * of_root
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_frechet_distance_with_fewer_vectors_than_features() -> None:
    vectors = np.random.default_rng(9).normal(size=(10, 200))
    assert frechet_distance(vectors, vectors) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(vectors, vectors[::-1] + 3.0) == pytest.approx(200 * 9)


def test_small_samples_of_one_distribution_seem_far_apart() -> None:
    """The bias that the docs warn of: positive, and about halved by twice the vectors."""
    draw = np.random.default_rng(10)

    def between_samples(count: int) -> float:
        return float(
            np.mean([frechet_distance(draw.normal(size=(count, 8)), draw.normal(size=(count, 8))) for _ in range(40)])
        )

    few, many = between_samples(100), between_samples(200)
    assert few > many > 0
    assert few / many == pytest.approx(2, rel=0.15)


def test_one_vector_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="two vectors or more; got 1 and 5"):
        frechet_distance(np.ones((1, 3)), np.ones((5, 3)))

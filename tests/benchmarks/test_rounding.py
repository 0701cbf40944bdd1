"""Closed forms of what is known about rounding by what layers are given."""

import torch

from benchmarks.rounding import (
    RANK,
    fed_back,
    output_error,
    rounded,
    smoothed,
    smoothing,
    weighted_branch,
)
from tests.backprop.tiny import seeded


def layer(rows: int = 24, columns: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and the second moments of inputs that are correlated and of very different size."""
    mixed = torch.randn(columns, columns, generator=seeded(1)) * torch.logspace(-1, 1, columns)
    return torch.randn(rows, columns, generator=seeded(2)), mixed.T @ mixed / columns


def test_the_weighted_branch_is_the_best_of_its_rank() -> None:
    w, c = (x.double() for x in layer())
    best = weighted_branch(w, c, 4)
    d = c.diagonal().sqrt()
    error = ((w - best) * d).norm()
    assert torch.linalg.matrix_rank(best) == 4
    assert torch.isclose(error, torch.linalg.svdvals(w * d)[4:].norm(), rtol=0.05)
    up, s, down = torch.linalg.svd(best, full_matrices=False)
    up, down = up[:, :4] * s[:4], down[:4]
    for seed in range(10):
        moved = [x + 0.05 * torch.randn(x.shape, generator=seeded(seed), dtype=x.dtype) for x in (up, down)]
        assert ((w - moved[0] @ moved[1]) * d).norm() > error


def test_smoothing_leaves_the_product_unchanged_and_chooses_the_nearest() -> None:
    w, c = layer()
    x = torch.randn(64, 5, generator=seeded(3))
    for a in (None, 0.0, 0.5, 1.0):
        s = smoothing(w, c, a)
        assert torch.allclose((w * s) @ (x / s[:, None]), w @ x, atol=1e-4)
        near = rounded(w * s, rank=RANK) / s
        assert output_error(w, smoothed(w, c), c) <= output_error(w, near, c)


def test_errors_that_are_fed_back_are_fewer_where_inputs_are_correlated() -> None:
    w, alone = layer()[0], torch.eye(64)
    few = torch.randn(16, 64, generator=seeded(4))
    c = few.T @ few + 0.1 * alone
    assert output_error(w, fed_back(w, c), c) < 0.5 * output_error(w, rounded(w), c)
    assert torch.allclose(fed_back(w, alone), rounded(w), atol=1e-5)

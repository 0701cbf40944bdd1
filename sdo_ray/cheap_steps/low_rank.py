"""A matrix's nearest of low rank, by a randomised range finder (Halko et al. 2011, arXiv 0909.4061, sect. 4.5)."""

import torch

ITERATIONS = 2
"""Of the subspace: enough where singular values fall slowly, as those of weights do."""


def low_rank(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of about the best approximation of a rank; the same for the same matrix.

    Args:
        matrix: [rows, columns], float32 or float64.
        rank: 0 or more; at most the smaller side counts.

    Returns:
        [rows, r] with orthonormal columns, and [r, columns]; their product is the approximation.
    """
    rank = min(rank, *matrix.shape)
    start = torch.randn(matrix.shape[1], rank, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    basis = _orthonormal(matrix @ start.to(matrix.device))
    for _ in range(ITERATIONS):
        basis = _orthonormal(matrix @ (matrix.T @ basis))
    return basis, basis.T @ matrix


def _orthonormal(columns: torch.Tensor) -> torch.Tensor:
    return torch.linalg.qr(columns)[0]

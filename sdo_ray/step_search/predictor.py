"""Guesses the errors of candidates from those that were measured, so that fewer have to be.

A ridge regression of log error on what makes it: at each step, how far back the last computed one is, and the way to
hold and the order as a whole. The surrogate of AutoDiffusion's and USF's searches is a network; here tens of
measurements have to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sdo_ray.step_search.candidate import Candidate, Genes

RIDGE = 1.0
SMALLEST = 1e-9
"""Errors below it are rounding."""


class Predictor:
    """Fitted to measurements.

    Args:
        genes: what may be chosen.
        candidates: that were measured, one or more.
        errors: of each, 0 or more.
    """

    def __init__(self, genes: Genes, candidates: Sequence[Candidate], errors: Sequence[float]) -> None:
        self._genes = genes
        x = torch.stack([self._features(candidate) for candidate in candidates])
        y = torch.tensor([math.log(max(error, SMALLEST)) for error in errors], dtype=torch.float64)
        self._mean_x, self._mean_y = x.mean(dim=0), y.mean()
        x, y = x - self._mean_x, y - self._mean_y
        self._weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)

    def __call__(self, candidate: Candidate) -> float:
        """The error that a candidate probably has."""
        guess = (self._features(candidate) - self._mean_x) @ self._weights + self._mean_y
        return math.exp(min(float(guess), 50.0))

    def _features(self, candidate: Candidate) -> torch.Tensor:
        genes = self._genes
        x = torch.zeros(len(genes.holds) + len(genes.orders) + genes.num_steps, dtype=torch.float64)
        x[candidate.hold] = 1
        x[len(genes.holds) + list(genes.orders).index(candidate.order)] = 1
        computed, last = set(candidate.steps), 0
        for step in range(genes.num_steps):
            last = step if step in computed else last
            x[len(genes.holds) + len(genes.orders) + step] = math.log1p(step - last)
        return x

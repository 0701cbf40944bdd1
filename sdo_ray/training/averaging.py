"""The mean of the policies along a run, which wanders less than the last of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class Average:
    """Exponential moving average of policies:  a <- decay a + (1 - decay) w,  a = w0 at first.

    Args:
        weights: w0, name -> float32.
        decay: in [0, 1).
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], decay: float) -> None:
        self._decay = decay
        self.weights = {name: tensor.clone() for name, tensor in weights.items()}

    def add(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the policy after one more update into it."""
        for name, tensor in self.weights.items():
            tensor.lerp_(weights[name], 1 - self._decay)

"""The mean of the policies along a run, which wanders less than the last of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sdo_ray.policy_gradient import Decay, decay_at


class Average:
    """Exponential moving average of policies:  a <- decay a + (1 - decay) w,  a = w0 at first.

    Args:
        weights: w0, name -> float32.
        decay: see `sdo_ray.policy_gradient.averages`; a number in [0, 1), or the name of one that changes.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], decay: Decay) -> None:
        self._decay = decay
        self.weights = {name: tensor.clone() for name, tensor in weights.items()}

    def add(self, weights: Mapping[str, torch.Tensor], update: int) -> None:
        """Take the policy after `update` updates into it."""
        decay = decay_at(self._decay, update)
        for name, tensor in self.weights.items():
            tensor.lerp_(weights[name], 1 - decay)

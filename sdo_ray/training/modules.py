"""What a trainer's DeepSpeed engine holds: the policy alone, or the denoisers with the policy in them.

Called with a contribution, either gives a scalar whose gradient is that contribution's gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.utils import _pytree as tree

from sdo_ray.backprop import surrogate
from sdo_ray.models.denoisers import load_denoisers
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach
from sdo_ray.models.precision import mixed_precision
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.records import Contribution

Weights = Mapping[str, torch.Tensor]
"""Parameter name -> float32 weights."""


class Policy(torch.nn.Module):
    """The trained weights as one module: where the samplers send gradients, no denoiser and no forward pass is needed.

    Args:
        weights: the policy.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.names = tuple(weights)
        # Parameter names may not contain dots, so they are held by position.
        self.tensors = torch.nn.ParameterList([tensor.clone().float() for tensor in weights.values()])

    def named(self) -> dict[str, torch.nn.Parameter]:
        """Parameter name -> weights."""
        return dict(zip(self.names, self.tensors, strict=True))

    def forward(self, contribution: Contribution) -> torch.Tensor:
        """sum <parameter, gradient>, 0-dimensional."""
        named = self.named().items()
        return torch.stack([(p * contribution.gradient[name].to(p.device)).sum() for name, p in named]).sum()


class Denoisers(torch.nn.Module):
    """The base model's denoisers with what is trained in them, for the backward pass of kept steps.

    Args:
        model: base, and what is trained.
        weights: the policy.
    """

    def __init__(self, model: ModelSettings, weights: Weights) -> None:
        super().__init__()
        self.denoisers = torch.nn.ModuleDict(attach(load_denoisers(model.base, model.dtype), model))
        set_parameters(dict(self.denoisers.items()), weights)

    def named(self) -> dict[str, torch.nn.Parameter]:
        """Parameter name -> weights."""
        return trained_parameters(dict(self.denoisers.items()))

    def forward(self, contribution: Contribution) -> torch.Tensor:
        """sum over the kept calls and their outputs of <output, gradient>, 0-dimensional."""
        device = next(self.parameters()).device
        terms = []
        with mixed_precision(self.denoisers.values(), device.type):
            for call in contribution.calls:
                args, kwargs, gradients = tree.tree_map_only(
                    torch.Tensor, lambda x: x.to(device), (call.args, call.kwargs, call.gradients)
                )
                terms.append(surrogate(self.denoisers[call.denoiser], args, kwargs, gradients))
        return torch.stack(terms).sum()

"""What a trainer's DeepSpeed engine holds: the policy alone, or the denoisers with the policy in them.

Either gathers what contributions bring as terms, and called with a term gives a scalar whose gradient is that term's
part of the update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch.utils import _pytree as tree

from sdo_ray.backprop import surrogate
from sdo_ray.backprop.scaling import power_of_two
from sdo_ray.models.checkpointing import checkpoint_blocks
from sdo_ray.models.denoisers import load_denoisers
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach
from sdo_ray.models.precision import mixed_precision
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.calls import ShippedCall
from sdo_ray.rollout.records import Contribution

Weights = Mapping[str, torch.Tensor]
"""Parameter name -> float32 weights."""


class Policy(torch.nn.Module):
    """The trained weights as one module: where the samplers send gradients, no denoiser and no forward pass is needed.

    Its one term is the sum of the gradients, float32 [P].

    Args:
        weights: the policy.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.names = tuple(sorted(weights))
        # Parameter names may not contain dots, so they are held by position.
        self.tensors = torch.nn.ParameterList([weights[name].clone().float() for name in self.names])

    def named(self) -> dict[str, torch.nn.Parameter]:
        """Parameter name -> weights."""
        return dict(zip(self.names, self.tensors, strict=True))

    def num_terms(self, contributions: int) -> int:
        """Terms of an update with so many contributions."""
        return 1

    def terms(self, contributions: Iterable[Contribution]) -> list[torch.Tensor]:
        """Add up the gradients, of one contribution after the other; those without one add nothing.

        Raises:
            ValueError: one is of other parameters.
        """
        total = torch.zeros(sum(tensor.numel() for tensor in self.tensors))
        shapes = {name: tuple(tensor.shape) for name, tensor in self.named().items()}
        for contribution in contributions:
            if gradient := contribution.gradient:
                if gradient.shapes != shapes:
                    raise ValueError("a contribution has the gradient of other parameters than are trained")
                total += gradient.vector
        return [total]

    def forward(self, total: torch.Tensor) -> torch.Tensor:
        """<parameters, total>, 0-dimensional."""
        return torch.cat([tensor.flatten() for tensor in self.tensors]) @ total.to(self.tensors[0].device)


class Denoisers(torch.nn.Module):
    """The base model's denoisers with what is trained in them, for the backward pass of kept steps.

    A term is the kept calls of one contribution.

    Args:
        model: base, and what is trained.
        weights: the policy.
        dtype: name of the type of what is trained; bfloat16 is of all parameters.
    """

    def __init__(self, model: ModelSettings, weights: Weights, dtype: str = "float32") -> None:
        super().__init__()
        self.denoisers = torch.nn.ModuleDict(attach(load_denoisers(model.reference, model.dtype, model.dtypes), model))
        self.unrounded: Weights = {}
        """Where the parameters are the policy rounded, the policy, until there are masters."""
        if dtype != "float32":
            self.unrounded = weights
            for parameter in self.parameters():  # ZeRO takes one type, so those too that a model keeps in float32
                parameter.data = parameter.data.to(getattr(torch, dtype))
        set_parameters(dict(self.denoisers.items()), weights)
        if model.checkpoints_blocks("cuda" if torch.cuda.is_available() else "cpu"):
            checkpoint_blocks(self.denoisers.values())
        self._scale = 1.0
        for parameter in self.named().values():
            parameter.register_hook(lambda gradient: gradient / self._scale)

    def named(self) -> dict[str, torch.nn.Parameter]:
        """Parameter name -> weights."""
        return trained_parameters(dict(self.denoisers.items()))

    def num_terms(self, contributions: int) -> int:
        """Terms of an update with so many contributions."""
        return contributions

    def terms(self, contributions: Iterable[Contribution]) -> list[Sequence[ShippedCall]]:
        """The calls of each contribution; of some there are none."""
        return [contribution.calls for contribution in contributions]

    def forward(self, calls: Sequence[ShippedCall]) -> torch.Tensor:
        """sum over one or more kept calls and their outputs of <output, gradient>, 0-dimensional.

        Through float16 the gradients go multiplied by a power of two, and so does this; the parameters' are right.
        """
        device = next(self.parameters()).device
        terms = []
        half = any(p.dtype == torch.float16 for p in self.parameters())
        self._scale = power_of_two(g for call in calls for g in call.gradients) if half else 1.0
        with mixed_precision(self.denoisers.values(), device.type):
            for call in calls:
                args, kwargs, gradients = tree.tree_map_only(
                    torch.Tensor, lambda x: x.to(device), (call.args, call.kwargs, call.gradients)
                )
                scaled = [self._scale * g for g in gradients]
                terms.append(surrogate(self.denoisers[call.denoiser], args, kwargs, scaled))
        return torch.stack(terms).sum()

"""The backward pass of a kept step, to be run elsewhere than where it was sampled.

The denoiser's inputs at the step and the gradient at its outputs are all that the pass needs, and small beside the
denoiser:  dR/dtheta = (do/dtheta)^T g,  o the raw outputs at z held constant, g = s dR/do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sdo_ray.backprop.caches import bypassed, cache_hooks
from sdo_ray.backprop.tensors import floating, map_floating, own_lists


@dataclass(frozen=True)
class KeptCall:
    """One denoiser call of a kept step, made without a graph.

    Attributes:
        denoiser: the component that was called, such as "unet".
        args: of the call, as given; its tensors are copies without a graph.
        kwargs: likewise.
        output: what came back; the gradient of its floating-point tensors starts there.
        scale: the plan's s.
    """

    denoiser: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    scale: float

    def gradients(self) -> list[torch.Tensor]:
        """g, one for each floating-point tensor of the output; zeros before the backward pass of the images."""
        outputs = floating(self.output)
        return [torch.zeros_like(o) if o.grad is None else self.scale * o.grad for o in outputs]


def keep_call(denoiser: str, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any], scale: float) -> KeptCall:
    """Make the call without a graph; see `KeptCall` for the arguments."""
    # Copies, because some pipelines go on to update their latents in place.
    kept_args, kept_kwargs = map_floating(lambda x: x.detach().clone(), (args, kwargs))
    args, kwargs = own_lists((kept_args, kept_kwargs))
    with torch.no_grad():
        output = forward(*args, **kwargs)
    for o in floating(output):
        o.requires_grad_()
    return KeptCall(denoiser, kept_args, kept_kwargs, output, scale)


def surrogate(
    denoiser: torch.nn.Module, args: Sequence[Any], kwargs: dict[str, Any], gradients: Sequence[torch.Tensor]
) -> torch.Tensor:
    """sum_o <o, g>, 0-dimensional, whose gradient with respect to the denoiser's parameters is (do/dtheta)^T g.

    Args:
        denoiser: with the parameters that sampled, or newer ones.
        args: of the call.
        kwargs: likewise.
        gradients: from `KeptCall.gradients`, on the same device.
    """
    with torch.enable_grad(), bypassed(cache_hooks(denoiser)):
        outputs = floating(denoiser(*args, **kwargs))
        return torch.stack([_inner(o, g) for o, g in zip(outputs, gradients, strict=True)]).sum()


def _inner(o: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    precise = torch.promote_types(o.dtype, torch.float32)
    return (o.to(precise) * g.to(precise)).sum()

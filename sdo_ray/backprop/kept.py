"""The backward pass of a kept step, to be run elsewhere than where it was sampled.

The denoiser's inputs at the step and the gradient at its outputs are all that the pass needs, and small beside the
denoiser:  dR/dtheta = (do/dtheta)^T g,  o the raw outputs at z held constant, g = s dR/do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sdo_ray.backprop.caches import bypassed, cache_hooks
from sdo_ray.backprop.pieces import Call, gradients_of, inputs_of, sample_of
from sdo_ray.backprop.surroundings import Surroundings
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
        surroundings: what the call depended on besides.
        rows: None, or those of the output's rows that learn; the arguments are for these alone then.
    """

    denoiser: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    scale: float
    surroundings: Surroundings
    rows: range | None = None

    def gradients(self) -> list[torch.Tensor]:
        """g, one for each floating-point tensor of the output; zeros before the backward pass of the images."""
        outputs = floating(self.output)
        g = [torch.zeros_like(o) if o.grad is None else self.scale * o.grad for o in outputs]
        return g if self.rows is None else [x[self.rows.start : self.rows.stop] for x in g]

    def is_finite(self) -> bool:
        """Whether the outputs and the gradients at them are, so that the backward pass can be."""
        return all(bool(x.isfinite().all()) for x in (*floating(self.output), *self.gradients()))


def keep_call(denoiser: str, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any], scale: float) -> KeptCall:
    """Make the call without a graph; see `KeptCall` for the arguments."""
    # Copies, because some pipelines go on to update their latents in place.
    kept_args, kept_kwargs = map_floating(lambda x: x.detach().clone(), (args, kwargs))
    args, kwargs = own_lists((kept_args, kept_kwargs))
    surroundings = Surroundings((args, kwargs))
    with torch.no_grad():
        output = forward(*args, **kwargs)
    for o in floating(output):
        o.requires_grad_()
    return KeptCall(denoiser, kept_args, kept_kwargs, output, scale, surroundings)


def backward_kept(denoiser: torch.nn.Module, call: KeptCall, pieces: int) -> None:
    """Make a kept call again and add (do/dtheta)^T g to `.grad` of the denoiser's parameters that require it.

    Args:
        denoiser: with the parameters that sampled.
        call: after the backward pass of the images.
        pieces: parts of its batch that it is made in, one after another; more where they do not fit the memory.

    Raises:
        torch.OutOfMemoryError: not even a single row fits.
        NotRowByRow: the call is for some rows of the one that was made, and gives others than that did.
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = own_lists((args, kwargs))
        with bypassed(cache_hooks(denoiser)):
            return denoiser(*args, **kwargs)

    g, parameters = call.gradients(), [p for p in denoiser.parameters() if p.requires_grad]
    rows = -(-max((x.shape[0] for x in g if x.dim()), default=1) // pieces)
    sampled = sample_of(call.output)
    if call.rows is not None:
        sampled = [x[call.rows.start : call.rows.stop] for x in sampled]
    again = Call(forward, call.args, call.kwargs, call.surroundings, sampled, part=call.rows is not None)
    wanted = [False] * len(inputs_of(call.args, call.kwargs))
    found = gradients_of(again, g, parameters, wanted, rows)
    for parameter, gradient in zip(parameters, found.parameters, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


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

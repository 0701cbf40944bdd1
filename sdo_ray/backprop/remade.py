"""Kept denoiser calls made again with other weights, and what the pipeline would have made of them.

Notation
    y    the denoiser's outputs at a kept step;  o  what the scheduler was given, guidance combined;  J = do / dy
    y'   the same calls with other weights

    o' = o + J (y' - y)

exact for what is linear in y, as guidance is of whatever kind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from sdo_ray.backprop.caches import bypassed, cache_hooks
from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.kept import KeptCall
from sdo_ray.backprop.tensors import floating, map_floating, own_lists


def made_again(denoiser: torch.nn.Module, call: KeptCall) -> list[torch.Tensor]:
    """y', without a graph: the call's floating-point outputs with the denoiser's parameters as they are now."""
    args, kwargs = own_lists(call.surroundings.with_generators((call.args, call.kwargs)))
    with torch.no_grad(), call.surroundings.restored(), bypassed(cache_hooks(denoiser)):
        return list(floating(denoiser(*args, **kwargs)))


def outputs_again(
    outputs: Sequence[torch.Tensor], calls: Sequence[KeptCall], denoisers: Mapping[str, torch.nn.Module]
) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
    """o' of each of `outputs`, without a graph, and y' of each of the calls.

    Args:
        outputs: o, made of the outputs of `calls`; their graph stays.
        calls: of whole batches, before their backward pass.
        denoisers: by component name, with the weights that are asked about.
    """
    made = [made_again(denoisers[call.denoiser], call) for call in calls]
    y = [x for call in calls for x in floating(call.output)]
    moved = [new - old.detach() for new, old in zip((x for one in made for x in one), y, strict=True)]
    return [o.detach() + _pushed(o, y, moved) for o in outputs], made


def renew(call: KeptCall, outputs: Sequence[torch.Tensor]) -> None:
    """Let the call's outputs be those of other weights, with which its backward pass is made then."""
    for old, new in zip(floating(call.output), outputs, strict=True):
        old.data.copy_(new)


def with_latents(call: KeptCall, z: torch.Tensor, other: torch.Tensor) -> KeptCall | None:
    """The call with `other` wherever it was given `z`, to be made again; None if it was given another.

    Args:
        call: as it was made; the outputs stay its own.
        z: latents as the scheduler scales them for the denoiser, [B, ...]; for guidance a call may have them several
            times.
        other: of the same shape.
    """
    found = 0

    def replaced(x: torch.Tensor) -> torch.Tensor:
        nonlocal found
        if x.dim() == 0 or x.shape[1:] != z.shape[1:] or x.shape[0] % z.shape[0]:
            return x
        repeats = (x.shape[0] // z.shape[0], *(1 for _ in z.shape[1:]))
        given = z.repeat(repeats)
        if (x.detach().float() - given.float()).norm() > 0.01 * given.float().norm():
            return x
        found += 1
        return other.repeat(repeats).to(x)

    args, kwargs = map_floating(replaced, (call.args, call.kwargs))
    return replace(call, args=args, kwargs=kwargs) if found else None


def check_guidance(outputs: Sequence[torch.Tensor], calls: Sequence[KeptCall]) -> None:
    """Refuse what is no linear combination of the denoiser's outputs, and so another one at other latents.

    Args:
        outputs: o, made of the outputs of `calls`; their graph stays.
        calls: of whole batches.

    Raises:
        TraceError: J y is not o.
    """
    y = [x for call in calls for x in floating(call.output)]
    for o in outputs:
        if (_pushed(o, y, [x.detach() for x in y]) - o).float().norm() > 0.02 * o.detach().float().norm():
            legal = "one that gives its scheduler a weighted sum of the denoiser's outputs"
            raise TraceError("pipeline", "one that does more than guidance", legal, "use plan group")


def _pushed(o: torch.Tensor, y: Sequence[torch.Tensor], v: Sequence[torch.Tensor]) -> torch.Tensor:
    """J v: backward through the graph is w -> J^T w, which is linear, and backward through that is v -> J v."""
    w = torch.zeros_like(o, requires_grad=True)
    back = torch.autograd.grad(o, y, w, create_graph=True, allow_unused=True)
    inner = [(g * one).sum() for g, one in zip(back, v, strict=True) if g is not None]
    (pushed,) = torch.autograd.grad(torch.stack(inner).sum(), w)
    return pushed

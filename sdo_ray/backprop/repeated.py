"""Denoiser calls that are made once more for their backward pass: checkpointed ones, and those made elsewhere."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.patches import attention_processors
from sdo_ray.backprop.tensors import holders, own_lists


def checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward`, of which the backward pass keeps the arguments alone and makes the rest again."""
    return functools.partial(checkpoint, _on_own_lists(forward), use_reentrant=False)


def check_can_be_repeated(
    option: str,
    name: str,
    arguments: Any,
    processors: Sequence[tuple[Any, Any]],
    denoiser: torch.nn.Module,
    fix: str = "run the backward pass with the sampling, without checkpointing, and with guidance 'both'",
) -> None:
    """What makes a call again, after the pipeline has ended, must be what made it, with all that it was made with.

    Args:
        option: the one that needs calls to be repeated, for the message.
        name: the denoiser's component name.
        arguments: of the call.
        processors: the denoiser's `attention_processors` before the pipeline was called.
        denoiser: as it is at the call.
        fix: what to do about it, for the message.

    Raises:
        TraceError: the pipeline has put other attention processors into its denoiser, or calls it with an object that
            it goes on to change, such as a cache of keys and values.
    """
    now = attention_processors(denoiser)
    if len(now) != len(processors) or any(a is not b for (_, a), (_, b) in zip(now, processors, strict=True)):
        got = f"a pipeline that puts other attention processors into its {name} for its call"
        raise TraceError(option, got, "one that leaves its denoiser as it is", fix)
    if held := next(holders(arguments), None):
        got = f"a pipeline that calls its {name} with a {type(held).__name__}, which it goes on to change"
        raise TraceError(option, got, "a call whose arguments are tensors and plain values", fix)


def _on_own_lists(forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = own_lists((args, kwargs))
        return forward(*args, **kwargs)

    return call

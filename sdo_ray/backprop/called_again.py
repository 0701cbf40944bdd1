"""Calls of networks that are not trained, which keep their inputs alone and are made again by their backward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sdo_ray.backprop.pieces import Call, gradients_of, inputs_of, sample_of
from sdo_ray.backprop.surroundings import Surroundings
from sdo_ray.backprop.tensors import floating, map_floating, own_lists, replace_floating


def called_again(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `forward(*args, **kwargs)` returns, with no graph but for what makes it again, row by row.

    Rows at which no gradient arrives are not made again, see `sdo_ray.backprop.pieces`. Lists among the arguments may
    be written to, as causal decoders do that leave there for the next frames what these need of the earlier ones: what
    is in them afterwards is returned too.

    Args:
        forward: of a network that is not trained.
        args: its tensors must stay as they are.
        kwargs: likewise.
    """
    inputs = inputs_of(args, kwargs)
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in inputs):
        return forward(*args, **kwargs)
    made = _Made(forward, args, kwargs)
    outputs = _Again.apply(made, *inputs)
    returned, written = replace_floating(made.take_output(), iter(outputs))
    for given, now in zip(_lists(args, kwargs), written, strict=True):
        given[:] = now
    return returned


class _Made:
    """A call between its two passes, without its floating-point inputs, which autograd keeps."""

    def __init__(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._forward = _returning_lists(forward)
        self._surroundings = Surroundings((args, kwargs))
        self._arguments = map_floating(lambda _: torch.empty(0), (args, kwargs))
        self._output: Any = None
        self._sampled: list[torch.Tensor] = []

    def forward(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs."""
        args, kwargs = self._with(inputs)
        self._output = self._forward(*args, **kwargs)
        self._sampled = sample_of(self._output)
        # Copies of what is, or is a view of, other tensors: whoever gets them may write to them, as tiles are blended.
        return [o.clone() if o._is_view() or any(o is x for x in inputs) else o for o in floating(self._output)]

    def take_output(self) -> Any:
        """What `forward` returned, and what is in the lists that it was given."""
        output, self._output = self._output, None
        return output

    def again(self, inputs: Sequence[torch.Tensor]) -> Call:
        """The call, to be made again."""
        args, kwargs = self._with(inputs)
        return Call(self._forward, args, kwargs, self._surroundings, self._sampled)

    def _with(self, inputs: Sequence[torch.Tensor]) -> Any:
        values = iter(inputs)
        return map_floating(lambda _: next(values), self._arguments)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, made: _Made, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.made = made
        ctx.save_for_backward(*inputs)
        return tuple(made.forward(inputs))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        call, wanted = ctx.made.again(ctx.saved_tensors), ctx.needs_input_grad[1:]
        return None, *gradients_of(call, cotangents, (), wanted, rows=1).inputs


def _returning_lists(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` on lists of its own, which it returns besides."""

    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = own_lists((args, kwargs))
        return forward(*args, **kwargs), _lists(args, kwargs)

    return call


def _lists(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[list[Any]]:
    return [x for x in (*args, *kwargs.values()) if type(x) is list]

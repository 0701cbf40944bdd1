"""Decoders that keep the latents alone for their backward pass, which decodes again, image by image.

A decoder's activations are many times the denoiser's. What it has of a gradient is dR/dz = (dD/dz)^T dR/dx, a
vector-Jacobian product that needs z and one image's activations at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sdo_ray.backprop.patches import replaced_call, replaced_method
from sdo_ray.backprop.pieces import Call, gradients_of, inputs_of, sample_of
from sdo_ray.backprop.repeated import checkpointed
from sdo_ray.backprop.surroundings import Surroundings
from sdo_ray.backprop.tensors import floating, map_floating, replace_floating


@contextmanager
def decoded_again(module: torch.nn.Module) -> Iterator[None]:
    """Within the block `module.decode(...)` has no graph but for what makes it again during the backward pass.

    What it returns is what it returned. Only for modules that are not trained.

    Args:
        module: with a method `decode` whose tensors have a row for each image, or frame, or part of a sound. One whose
            rows know of one another (some decoders of videos) is decoded again as a whole.
    """

    def around(decode: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs = inputs_of(args, kwargs)
        if not torch.is_grad_enabled() or not any(x.requires_grad for x in inputs):
            return decode(*args, **kwargs)
        made = _Decoding(_in_types_of_now(module, decode), args, kwargs)
        outputs = _DecodedAgain.apply(made, *inputs)
        return replace_floating(made.take_output(), iter(outputs))

    with replaced_method(module, "decode", around):
        yield


class _Decoding:
    """A call of `decode` between its two passes, without its floating-point inputs, which autograd keeps."""

    def __init__(self, decode: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._decode = decode
        self._surroundings = Surroundings((args, kwargs))
        self._arguments = map_floating(lambda _: torch.empty(0), (args, kwargs))
        self._output: Any = None
        self._sampled: list[torch.Tensor] = []

    def forward(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs."""
        args, kwargs = self._with(inputs)
        self._output = self._decode(*args, **kwargs)
        self._sampled = sample_of(self._output)
        return [o.clone() if any(o is x for x in inputs) else o for o in floating(self._output)]

    def take_output(self) -> Any:
        """What `decode` returned."""
        output, self._output = self._output, None
        return output

    def again(self, inputs: Sequence[torch.Tensor]) -> Call:
        """The call, to be made again."""
        args, kwargs = self._with(inputs)
        return Call(self._decode, args, kwargs, self._surroundings, self._sampled)

    def _with(self, inputs: Sequence[torch.Tensor]) -> Any:
        values = iter(inputs)
        return map_floating(lambda _: next(values), self._arguments)


class _DecodedAgain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, made: _Decoding, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.made = made
        ctx.save_for_backward(*inputs)
        return tuple(made.forward(inputs))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        call, wanted = ctx.made.again(ctx.saved_tensors), ctx.needs_input_grad[1:]
        return None, *gradients_of(call, cotangents, (), wanted, rows=1).inputs


def _in_types_of_now(module: torch.nn.Module, decode: Callable[..., Any]) -> Callable[..., Any]:
    """`decode` with the module's weights of the types that they have now: pipelines change them for the decoding.

    Where it decodes in tiles, of pixels or of frames, with a graph it keeps each tile's latents alone.
    """
    types = [held[name].dtype for held, name in _weights(module)]

    def call(*args: Any, **kwargs: Any) -> Any:
        # Other tensors for the call, not others' contents: its graph goes on to hold those that it had.
        changed = [
            (held, name, held[name], dtype)
            for (held, name), dtype in zip(_weights(module), types, strict=True)
            if held[name].dtype != dtype
        ]
        for held, name, before, dtype in changed:
            held[name] = before.detach().to(dtype)
        try:
            with _tiles_again(module):
                return decode(*args, **kwargs)
        finally:
            for held, name, before, _ in changed:
                held[name] = before

    return call


@contextmanager
def _tiles_again(module: torch.nn.Module) -> Iterator[None]:
    """Within the block each tile of an autoencoder that decodes in tiles is decoded again by the backward pass."""
    part = getattr(module, "decoder", None)
    in_tiles = getattr(module, "use_tiling", False) or getattr(module, "use_framewise_decoding", False)
    if not in_tiles or not isinstance(part, torch.nn.Module):
        yield
        return
    with replaced_call(part, lambda call, args, kwargs: checkpointed(call)(*args, **kwargs)):
        yield


def _weights(module: torch.nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Where the module's floating-point parameters and buffers are."""
    return [
        (held, name)
        for part in module.modules()
        for held in (part._parameters, part._buffers)
        for name, x in held.items()
        if x is not None and x.is_floating_point()
    ]

"""Decoders that keep the latents alone for their backward pass, which decodes again, image by image.

A decoder's activations are many times the denoiser's. What it has of a gradient is dR/dz = (dD/dz)^T dR/dx, a
vector-Jacobian product that needs z and one image's activations at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sdo_ray.backprop.called_again import called_again
from sdo_ray.backprop.patches import replaced_call, replaced_method


@contextmanager
def decoded_again(module: torch.nn.Module) -> Iterator[None]:
    """Within the block `module.decode(...)` has no graph but for what makes it again during the backward pass.

    What it returns is what it returned. Only for modules that are not trained.

    Args:
        module: with a method `decode` whose tensors have a row for each image, or frame, or part of a sound. One whose
            rows know of one another (some decoders of videos) is decoded again as a whole.
    """

    def around(decode: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return called_again(_in_types_of_now(module, _by_tiles(module, decode)), args, kwargs)

    with replaced_method(module, "decode", around):
        yield


def _in_types_of_now(module: torch.nn.Module, decode: Callable[..., Any]) -> Callable[..., Any]:
    """`decode` with the module's weights of the types that they have now: pipelines change them for the decoding."""
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
            return decode(*args, **kwargs)
        finally:
            for held, name, before, _ in changed:
                held[name] = before

    return call


_REMEMBER = {"AutoencoderKLMagvit", "AutoencoderVidTok"}
"""Their layers keep what a tile needs of the frames before it, where no call made again would find it."""


def keeps_tiles(module: torch.nn.Module) -> bool:
    """Whether `module.decode`, made again, keeps of each tile, of pixels or of frames, its latents alone."""
    in_tiles = getattr(module, "use_tiling", False) or getattr(module, "use_framewise_decoding", False)
    remembers = _REMEMBER & {kind.__name__ for kind in type(module).__mro__}
    return bool(in_tiles) and isinstance(getattr(module, "decoder", None), torch.nn.Module) and not remembers


def _by_tiles(module: torch.nn.Module, decode: Callable[..., Any]) -> Callable[..., Any]:
    """`decode`, which with a graph keeps each tile's latents alone where the module does so."""
    if not keeps_tiles(module):
        return decode
    part: Any = module.decoder

    def around(decode_tile: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # A tile is made again when the weights of the whole have their own types back.
        return called_again(_in_types_of_now(part, decode_tile), args, kwargs)

    def call(*args: Any, **kwargs: Any) -> Any:
        with replaced_call(part, around):
            return decode(*args, **kwargs)

    return call


def _weights(module: torch.nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Where the module's floating-point parameters and buffers are."""
    return [
        (held, name)
        for part in module.modules()
        for held in (part._parameters, part._buffers)
        for name, x in held.items()
        if x is not None and x.is_floating_point()
    ]

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
        return called_again(_in_types_of_now(module, decode), args, kwargs)

    with replaced_method(module, "decode", around):
        yield


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


_REMEMBER = ("AutoencoderKLMagvit", "AutoencoderVidTok")
"""Their layers keep what a tile needs of the frames before it, where no call made again would find it."""


@contextmanager
def _tiles_again(module: torch.nn.Module) -> Iterator[None]:
    """Within the block each tile of an autoencoder that decodes in tiles keeps its latents alone."""
    part = getattr(module, "decoder", None)
    in_tiles = getattr(module, "use_tiling", False) or getattr(module, "use_framewise_decoding", False)
    if not in_tiles or not isinstance(part, torch.nn.Module) or type(module).__name__ in _REMEMBER:
        yield
        return
    with replaced_call(part, called_again):
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

"""Whether a decoder makes the frames of a video, or chunks or runs of them, by themselves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sdo_ray.backprop.decoder import keeps_tiles
from sdo_ray.backprop.patches import replaced_method
from sdo_ray.backprop.tensors import floating


@contextmanager
def watched(module: torch.nn.Module, network: torch.nn.Module | None = None) -> Iterator[Callable[[], bool]]:
    """Within the block, in which a pipeline makes one video, it is noticed how `module.decode` makes its frames.

    Args:
        module: an autoencoder, with a method `decode`.
        network: the one that decodes in its place; None: itself.

    Yields:
        Whether `decoded_again(module)` decodes some frames again for less than all of them. So it is where each is a
        row of latents [F, C, H, W]; where chunks of frames are calls of their own; and where the autoencoder
        decodes by runs of frames of [1, C, F, H, W], and keeps their latents alone.
    """
    calls, apart = 0, False
    part = getattr(network or module, "decoder", None)

    def around(decode: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal calls, apart
        calls += 1
        z = next(floating((args, kwargs)), torch.empty(0))
        # Who is told of how many frames its rows are has layers between them.
        apart = apart or calls > 1 or (z.dim() == 4 and len(z) > 1 and "num_frames" not in kwargs)
        if z.dim() != 5 or not isinstance(part, torch.nn.Module) or not keeps_tiles(module):
            return decode(*args, **kwargs)

        def on_run(_: Any, given: tuple[Any, ...]) -> None:
            nonlocal apart
            apart = apart or given[0].shape[2] < z.shape[2]

        handle = part.register_forward_pre_hook(on_run)
        try:
            return decode(*args, **kwargs)
        finally:
            handle.remove()

    with replaced_method(module, "decode", around):
        yield lambda: apart

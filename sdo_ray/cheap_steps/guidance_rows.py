"""What guidance leads away from in a denoiser's calls, which may be held while the prompt's branch is computed.

In diffusers' pipelines it is the first half of a batch whose latents are there twice, or the calls after a step's first
with the same latents.
"""

from __future__ import annotations

from typing import Any

import torch

from sdo_ray.backprop.pieces import rows_of
from sdo_ray.backprop.tensors import floating, map_leaves, rebuilt


def latents_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """What is denoised: the first tensor of three dimensions or more, [rows, ...]."""
    return next((x for x in floating((args, kwargs)) if x.dim() > 2), None)


def prompts_half(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """A call's arguments with the second half of its rows alone; None where its latents are not there twice."""
    x = latents_of(args, kwargs)
    if x is None or len(x) % 2 or not torch.equal(x[: len(x) // 2], x[len(x) // 2 :]):
        return None
    rows, batch = range(len(x) // 2, len(x)), len(x)
    few: tuple[tuple[Any, ...], dict[str, Any]] = map_leaves(
        lambda leaf: rows_of(leaf, rows, batch) if isinstance(leaf, torch.Tensor) else leaf, (args, kwargs)
    )
    return few


def with_half(held: Any, computed: Any) -> Any:
    """`held`, all rows as they are continued, with its second half as it was computed; of the type of `held`."""
    pairs = zip(floating(held), floating(computed), strict=True)
    return rebuilt(held, iter([torch.cat([x[: len(x) // 2], y.to(x.dtype)]) for x, y in pairs]))

"""What some networks do that the meta device, which has no values, refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.fx.experimental import _config


@contextmanager
def allowances() -> Iterator[None]:
    """Within the block, on the meta device, `torch.autocast` does nothing and all that a mask may have is there.

    Autocast is switched on or off for the device of what a network is given, and the meta device has none. Where masks
    are of texts, what `torch.nonzero` finds (Mochi's transformer) or what is counted and listed (Lumina 2's) is the
    longest text.
    """
    autocast, total, listed = torch.autocast, torch.Tensor.sum, torch.Tensor.tolist

    def of_a_device(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == "meta" else autocast(device_type, *args, **kwargs)

    def counted(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        y = total(x, *args, **kwargs)
        if x.is_meta and not x.is_floating_point() and y.numel():
            y.counted = x.numel() // y.numel()  # type: ignore[attr-defined]
        return y

    def list_of(x: torch.Tensor) -> Any:
        return listed(torch.full(x.shape, x.counted) if x.is_meta and hasattr(x, "counted") else x)

    with (
        _replaced(torch, "autocast", of_a_device),
        _replaced(torch.Tensor, "sum", counted),
        _replaced(torch.Tensor, "tolist", list_of),
        _config.patch(meta_nonzero_assume_all_nonzero=True),  # type: ignore[attr-defined]
    ):
        yield


@contextmanager
def _replaced(holder: Any, name: str, new: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, new)
    try:
        yield
    finally:
        setattr(holder, name, before)

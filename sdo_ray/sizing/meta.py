"""What some networks do that the meta device, which has no values, refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.fx.experimental import _config


@contextmanager
def allowances() -> Iterator[None]:
    """Within the block, on the meta device, `torch.autocast` does nothing and `torch.nonzero` finds everything.

    Autocast is switched on or off for the device of what a network is given, and the meta device has none. Where masks
    are of texts, as in Mochi's transformer, what is found is the longest text.
    """
    before = torch.autocast

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == "meta" else before(device_type, *args, **kwargs)

    torch.autocast = autocast  # type: ignore[assignment,misc]
    try:
        with _config.patch(meta_nonzero_assume_all_nonzero=True):  # type: ignore[attr-defined]
            yield
    finally:
        torch.autocast = before  # type: ignore[misc]

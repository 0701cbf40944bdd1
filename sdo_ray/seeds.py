"""Seeds that belong to rows, so that a batch redone after a crash, or by another actor, is the same batch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(run_seed: int, purpose: str, index: int) -> int:
    """A seed in [0, 2^63) that depends on nothing but its arguments, on every machine.

    Args:
        run_seed: the run's seed.
        purpose: what it is for, such as "noise"; different purposes are independent.
        index: the row, or the number of what is seeded.
    """
    digest = hashlib.sha256(f"{run_seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(run_seed: int, purpose: str, index: int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed`; diffusers moves what it draws to the device."""
    import torch  # here, because processes that only lay out prompts do without it

    return torch.Generator("cpu").manual_seed(derive_seed(run_seed, purpose, index))

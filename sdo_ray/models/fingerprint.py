"""Whether two processes hold the same weights, in a few bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of names, shapes, types and bits, in whatever order and on whatever device: 16 hexadecimal digits.

    Of each tensor the sum of its bits as integers is taken, in the time of reading it once, so it tells other weights,
    a cut file or another revision, and not an exchange of two values within a tensor.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {_sum_of_bits(tensor)}\n".encode())
    return digest.hexdigest()[:16]


def _sum_of_bits(tensor: torch.Tensor) -> int:
    if is_traceable_wrapper_subclass(tensor):  # of rounded weights and their scales
        return sum(_sum_of_bits(getattr(tensor, part)) for part in tensor.__tensor_flatten__()[0])
    flat = tensor.detach().contiguous().flatten()
    return int(flat.view(_INTEGERS[flat.element_size()]).sum(dtype=torch.int64))


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

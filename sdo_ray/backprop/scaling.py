"""Powers of two by which gradients are multiplied on their way through float16.

float16's smallest number is 6e-8, and an image's gradient of a mean over its pixels is about as small: it would come
out as zeros. A power of two changes no digit, and the gradient is linear in it.
"""

import math
from collections.abc import Iterable

import torch

_ATTEMPTS, _LESS = 4, 2.0**-6
"""float16 ends at 6e4, and what a parameter gets is a sum over the pixels."""


def scales_of(cotangents: Iterable[torch.Tensor], through: Iterable[torch.Tensor]) -> tuple[float, ...]:
    """What to multiply the cotangents of a backward pass by, to be tried in turn until nothing overflows.

    Args:
        cotangents: that it starts with.
        through: tensors on its way. Where none is of float16 the one try is 1.
    """
    if not any(x.dtype == torch.float16 for x in through):
        return (1.0,)
    first = power_of_two(cotangents)
    return tuple(first * _LESS**attempt for attempt in range(_ATTEMPTS))


def power_of_two(tensors: Iterable[torch.Tensor]) -> float:
    """What brings the largest root mean square among `tensors` to between 0.7 and 1.5; 1 if that is 0 or not finite."""
    sizes = [x.detach().float().square().mean().sqrt().item() for x in tensors if x.numel()]
    largest = max(sizes, default=0.0)
    if largest == 0 or not all(map(math.isfinite, sizes)):
        return 1.0
    return 2.0 ** -round(math.log2(largest))

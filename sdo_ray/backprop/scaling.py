"""Powers of two by which gradients are multiplied on their way through float16.

float16's smallest number is 6e-8, and an image's gradient of a mean over its pixels is about as small: it would come
out as zeros. A power of two changes no digit, and the gradient is linear in it.
"""

import math
from collections.abc import Iterable

import torch


def power_of_two(tensors: Iterable[torch.Tensor]) -> float:
    """What brings the largest root mean square among `tensors` to between 0.7 and 1.5; 1 if that is 0 or not finite."""
    sizes = [x.detach().float().square().mean().sqrt().item() for x in tensors if x.numel()]
    largest = max(sizes, default=0.0)
    if largest == 0 or not all(map(math.isfinite, sizes)):
        return 1.0
    return 2.0 ** -round(math.log2(largest))

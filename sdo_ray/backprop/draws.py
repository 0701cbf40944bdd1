"""Which steps to keep: random draws without replacement, sorted, from a torch generator.

Notation
    N   sampling steps 0 .. N-1;  K  steps to draw;  p_i  probability that step i is among the drawn
"""

from collections.abc import Sequence
from itertools import pairwise

import torch

from sdo_ray.backprop.errors import PlanError


def check_count(field: str, got: int, upper: int) -> int:
    """`got` if it is an integer in 1 .. `upper`, else a PlanError about `field`."""
    if isinstance(got, bool) or not isinstance(got, int) or not 1 <= got <= upper:
        raise PlanError(field, got, f"an integer in 1 .. {upper} (num_steps)", f"lower {field} or take more steps")
    return got


def uniform(population: Sequence[int], K: int, generator: torch.Generator | None) -> list[int]:
    """K of `population`, every subset equally likely: p_i = K / len(population)."""
    order = torch.randperm(len(population), generator=generator)[:K]
    return sorted(population[j] for j in order.tolist())


def stratified(N: int, K: int, generator: torch.Generator | None) -> list[tuple[int, int]]:
    """One uniform draw from each of K contiguous strata that cover 0 .. N-1.

    Returns:
        K pairs (step, size n of its stratum), so that p_step = 1 / n.
    """
    edges = [j * N // K for j in range(K + 1)]
    strata = [range(lo, hi) for lo, hi in pairwise(edges)]
    return [(uniform(stratum, 1, generator)[0], len(stratum)) for stratum in strata]

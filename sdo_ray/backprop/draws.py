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


def check_flag(field: str, got: bool) -> bool:
    """`got` if it is a truth value, else a PlanError about `field`."""
    if not isinstance(got, bool):
        raise PlanError(field, got, "true or false", "give one of the two")
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


def late_biased(population: Sequence[int], K: int, bias: float, generator: torch.Generator | None) -> list[int]:
    """K of `population`, drawn one after the other with probability proportional to (place + 1)^bias among the rest."""
    places = torch.arange(1, len(population) + 1, dtype=torch.float64) ** bias
    chosen = torch.multinomial(places, K, replacement=False, generator=generator)
    return sorted(population[j] for j in chosen.tolist())


def integer(low: int, high: int, generator: torch.Generator | None) -> int:
    """An integer in low .. high, both included, each equally likely."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def segments(N: int, concentration: Sequence[float], generator: torch.Generator | None) -> list[int]:
    """N >= len(concentration) split into positive integers whose shares follow a Dirichlet distribution, rounded."""
    seed = integer(0, 2**31 - 1, generator)
    # torch.distributions takes no generator: seed the default one for this draw, and give it back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        shares = torch.distributions.Dirichlet(torch.tensor(concentration, dtype=torch.float64)).sample()
    lengths = (shares * N).round().long().clamp(min=1)
    lengths[lengths.argmax()] += N - lengths.sum()
    return lengths.tolist()


def check_share(field: str, got: float, upper: float = 1.0) -> float:
    """`got` if it is a number in 0 .. `upper`, else a PlanError about `field`."""
    if isinstance(got, bool) or not isinstance(got, int | float) or not 0 <= got <= upper:
        raise PlanError(field, got, f"a number in 0 .. {upper:g}", f"change {field}")
    return float(got)

"""How fast an average of the policies forgets, update by update."""

from collections.abc import Callable

from sdo_ray.backprop import PlanError

Decay = str | float
"""A name in `DECAYS`, or a constant in [0, 1)."""

DECAYS: dict[str, Callable[[int], float]] = {
    "slow": lambda n: min(0.001 * n, 0.5),
    "late": lambda n: min(0.0075 * (n - 75), 0.999) if n > 75 else 0.0,
}
"""Name -> k of update n = 1, 2, ..: average <- k average + (1 - k) newest. Both are DiffusionNFT's (config/nft.py)."""


def decay_at(decay: Decay, n: int) -> float:
    """k of update n."""
    return DECAYS[decay](n) if isinstance(decay, str) else decay


def check_decay(decay: Decay) -> Decay:
    """`decay` if there is such a one.

    Raises:
        PlanError: there is none.
    """
    number = isinstance(decay, int | float) and not isinstance(decay, bool) and 0 <= decay < 1
    if not number and decay not in DECAYS:
        raise PlanError("decay", decay, f"{', '.join(DECAYS)}, or a number of at least 0, below 1", "choose one")
    return decay

"""Where a window of stochastic steps lies."""

import torch

from sdo_ray.backprop import PlanError, draws


def steps_in(first: int, last: int | None, num_steps: int) -> range:
    """The steps `first` .. `last`, of those that can be stochastic, 0 .. N-2; `last` None is the last of them.

    Raises:
        PlanError: none, or others.
    """
    end = num_steps - 2 if last is None else last
    if not all(isinstance(k, int) and not isinstance(k, bool) for k in (first, end)) or not 0 <= first <= end:
        raise PlanError("first", first, f"a step in 0 .. last = {end}", "choose an earlier one")
    if end > num_steps - 2:
        raise PlanError("last", end, f"a step in {first} .. {num_steps - 2}: the last has no noise", "lower it")
    return range(first, end + 1)


def window(steps: range, size: int, generator: torch.Generator | None) -> tuple[int, ...]:
    """`size` steps of `steps`, one after the other, each start equally likely."""
    draws.check_count("steps", size, len(steps))
    start = draws.integer(steps[0], steps[-1] - size + 1, generator)
    return tuple(range(start, start + size))


def count(option: str, got: int, least: int) -> int:
    """`got` if it is an integer of at least `least`, else a PlanError about `option`."""
    if isinstance(got, bool) or not isinstance(got, int) or got < least:
        raise PlanError(option, got, f"an integer of at least {least}", f"raise {option}")
    return got

"""How much each stochastic step counts.

Notation: q, c of the step's transition. On-policy the gradient at the step's output is w c a eps / (q D).
"""

from collections.abc import Callable, Sequence

from sdo_ray.backprop.transitions import Transition


def step_weight(kind: str, transitions: Sequence[Transition], step: int, pool: Sequence[int]) -> float:
    """w > 0.

    Args:
        kind: a name in `STEP_WEIGHTS`.
        transitions: of steps 0 .. N-2.
        step: which.
        pool: the steps that it might have been, for `flash`.
    """
    of = STEP_WEIGHTS[kind]
    if kind == "flash":
        return of(transitions[step]) * len(pool) / sum(of(transitions[k]) for k in pool)
    return of(transitions[step])


STEP_WEIGHTS: dict[str, Callable[[Transition], float]] = {
    "one": lambda transition: 1.0,
    "bare": lambda transition: 2 * transition.std**2,
    "tempflow": lambda transition: 2.25 * transition.std,
    "flash": lambda transition: transition.std / abs(transition.weight),
}
"""`one`: the density as it is. `bare`: of -(z' - mu)^2, as `cps` was released (arXiv 2509.05952). `tempflow`: TempFlow
(arXiv 2508.04324). `flash`: steps whose outputs learn equally much, over the mean of the pool (Flash-GRPO)."""

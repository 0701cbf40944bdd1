"""The policy-gradient estimators by name, and plans made from a name and options.

An estimator is a function `(num_steps, *, generator, update, <options>) -> PolicyPlan`. On top of its own options it
has those of `COMMON`, whose defaults are its plan's.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch

from sdo_ray.backprop import PlanError
from sdo_ray.policy_gradient.plan import PolicyPlan

COMMON = (
    "kernel",
    "eta",
    "advantage",
    "baseline",
    "best_and_worst",
    "weight",
    "share",
    "loss",
    "clip",
    "kl",
    "output_kl",
)
"""Options of every estimator: fields of `PolicyPlan`."""

PolicyEstimator = Callable[..., PolicyPlan]
E = TypeVar("E", bound=PolicyEstimator)

_ESTIMATORS: dict[str, PolicyEstimator] = {}
_GIVEN = ("num_steps", "generator", "update")


def policy_estimator(name: str) -> Callable[[E], E]:
    """Register a plan function under `name`."""

    def register(function: E) -> E:
        _ESTIMATORS[name] = function
        return function

    return register


def available() -> tuple[str, ...]:
    """Names of the policy-gradient estimators, sorted."""
    return tuple(sorted(_ESTIMATORS))


def policy_option_names(name: str) -> tuple[str, ...]:
    """What an estimator takes as options, its own first."""
    own = [p for p in inspect.signature(_ESTIMATORS[name]).parameters if p not in _GIVEN]
    return (*own, *COMMON)


def make_policy_plan(
    name: str, num_steps: int, *, generator: torch.Generator | None = None, update: int = 0, **options: Any
) -> PolicyPlan:
    """Make the plan of one update.

    Args:
        name: one of `available`.
        num_steps: N, the steps that the scheduler takes, at least 2.
        generator: where random draws come from; None is torch's default.
        update: its number, for estimators whose steps move during a run.
        options: the estimator's, see docs/black-box.md.

    Raises:
        PlanError: an unknown option, or one out of range.
    """
    if num_steps < 2:
        raise PlanError("num_steps", num_steps, "at least 2: the last step has no noise", "take more steps")
    names = policy_option_names(name)
    for option in options:
        if option not in names:
            legal = f"options of {name}: {', '.join(names)}"
            raise PlanError(option, options[option], legal, f"remove or rename {option!r}")
    own = {option: value for option, value in options.items() if option not in COMMON}
    plan = _ESTIMATORS[name](num_steps, generator=generator, update=update, **own)
    return replace(plan, **{option: value for option, value in options.items() if option in COMMON})


def check_policy_plan(name: str, num_steps: int, options: Mapping[str, Any], draws: int = 16) -> list[PolicyPlan]:
    """Refuse options that `make_policy_plan` would refuse, without touching any RNG; returns `draws` plans.

    Raises:
        PlanError: as `make_policy_plan`.
    """
    generator = torch.Generator().manual_seed(0)
    return [make_policy_plan(name, num_steps, generator=generator, **options) for _ in range(draws)]

"""The estimators by name, and plans made from a name and options.

An estimator is a function `(num_steps, *, generator, <options>) -> BackpropPlan` whose other keyword parameters are its
options. All have one more, `guidance`, whose default is what the function's plans say. One that needs the scheduler's
weights also has a parameter `weights`. Registering takes the decorator `@estimator("name")`; a function that is not
registered is named by its import path, "package.module:function".
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any, TypeVar

import torch

from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.plan import BackpropPlan
from sdo_ray.backprop.solver import SolverWeights

Estimator = Callable[..., BackpropPlan]
E = TypeVar("E", bound=Estimator)

_ESTIMATORS: dict[str, Estimator] = {}
_GIVEN = ("num_steps", "generator", "weights")
_OF_ALL = "guidance"


def estimator(name: str) -> Callable[[E], E]:
    """Register a plan function under `name`.

    Raises:
        PlanError: the name is taken.
    """

    def register(function: E) -> E:
        if name in _ESTIMATORS:
            raise PlanError("estimator", name, f"a name not in {', '.join(available())}", "choose another name")
        _ESTIMATORS[name] = function
        return function

    return register


def available() -> tuple[str, ...]:
    """Names of the registered estimators, sorted."""
    return tuple(sorted(_ESTIMATORS))


def make_plan(
    name: str,
    num_steps: int,
    *,
    generator: torch.Generator | None = None,
    weights: SolverWeights | None = None,
    **options: Any,
) -> BackpropPlan:
    """Make the plan of one update; plans that draw steps draw anew at each call.

    Args:
        name: a registered estimator (see `available`) or an import path "package.module:function".
        num_steps: N, the steps the scheduler takes.
        generator: where random draws come from, a CPU generator; None is torch's default.
        weights: `solver_weights(scheduler, n)`, for the estimators that weigh steps by the solver.
        options: the estimator's own, named as in docs/method.md.

    Returns:
        A BackpropPlan.

    Raises:
        PlanError: unknown name or option, an option out of range, or missing `weights`.
    """
    function = _find(name)
    _check_options(name, options)
    given: dict[str, Any] = {"generator": generator}
    if needs_weights(name):
        given["weights"] = _check_weights(name, num_steps, weights)
    changes = {_OF_ALL: options.pop(_OF_ALL)} if _OF_ALL in options else {}
    return replace(function(num_steps, **given, **options), **changes)


def needs_weights(name: str) -> bool:
    """Whether `make_plan` takes the solver's weights for this estimator."""
    return "weights" in inspect.signature(_find(name)).parameters


def option_names(name: str) -> tuple[str, ...]:
    """What `make_plan` takes as this estimator's own options.

    Raises:
        PlanError: unknown name.
    """
    return (*(p for p in inspect.signature(_find(name)).parameters if p not in _GIVEN), _OF_ALL)


def check_plan(name: str, num_steps: int, options: Mapping[str, Any], draws: int = 16) -> list[BackpropPlan]:
    """Refuse a name with options that `make_plan` would refuse, before anything runs and without touching any RNG.

    Returns:
        `draws` plans as they may come, with equal weights where the estimator takes the solver's.

    Raises:
        PlanError: as `make_plan`; a missing `weights` is not an error here.
    """
    equal = SolverWeights(a=1.0, w=torch.ones(max(num_steps, 1), dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    return [make_plan(name, num_steps, generator=generator, weights=equal, **options) for _ in range(draws)]


def _find(name: str) -> Estimator:
    if name in _ESTIMATORS:
        return _ESTIMATORS[name]
    legal = f"one of {', '.join(available())}, or an import path 'package.module:function'"
    module, colon, attribute = name.partition(":")
    if not colon:
        raise PlanError("estimator", name, legal, "use a name from the list")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PlanError("estimator", name, legal, f"make the path importable ({error})") from error


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    own = option_names(name)
    for option in options:
        if option not in own:
            legal = f"options of {name}: {', '.join(own) or 'none'}"
            raise PlanError(option, options[option], legal, f"remove or rename {option!r}")


def _check_weights(name: str, num_steps: int, weights: SolverWeights | None) -> SolverWeights:
    if weights is None or weights.num_steps != num_steps:
        raise PlanError(
            "weights",
            weights and f"weights of {weights.num_steps} steps",
            f"SolverWeights of {num_steps} steps: {name} weighs steps by the solver",
            "pass weights=solver_weights(pipeline.scheduler, num_inference_steps)",
        )
    return weights

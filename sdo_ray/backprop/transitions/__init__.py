"""Stochastic steps: one solver step with fresh noise in it, for rewards that have no gradient.

Notation (k is the step, primes are after it)
    z, o       latents and model output that `scheduler.step` is given;  step(z, o)  what it returns
    z = alpha x_0 + sigma eps     in every scheduler's terms (`sdo_ray.backprop.posterior`)
    xhat, ehat predicted clean latents and predicted noise, ehat = (z - alpha xhat) / sigma
    q          standard deviation of the fresh noise

Every published kernel is the solver's own step with some predicted noise taken out and fresh noise put in:

    z' = mu + q eps,   mu = step(z, o) + kappa ehat,   kappa <= 0
"""

from sdo_ray.backprop.transitions.branching import Branching
from sdo_ray.backprop.transitions.kernels import KERNELS, Kernel
from sdo_ray.backprop.transitions.linear_steps import LinearStep, linear_steps, step_levels
from sdo_ray.backprop.transitions.stochastic_steps import StochasticSteps
from sdo_ray.backprop.transitions.transition import Transition, transitions

__all__ = [
    "KERNELS",
    "Branching",
    "Kernel",
    "LinearStep",
    "StochasticSteps",
    "Transition",
    "linear_steps",
    "step_levels",
    "transitions",
]

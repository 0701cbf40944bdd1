"""How much predicted noise a stochastic step takes out, and how much fresh noise it puts in, by the published kernels.

Notation
    alpha, sigma before the step, alpha', sigma' after it
    s, s', d       flow matching (alpha = 1 - s, sigma = s): the levels, and d = s' - s < 0
    eta            strength; 0 is the solver's own step
    kappa, q       mu = step(z, o) + kappa ehat;  z' = mu + q eps
    lambda         alpha sigma' / (alpha' sigma): by which factor noise over signal falls, 0 <= lambda < 1

`cps`, `ddim` and `ou` are one family: ehat is mixed with fresh noise, z' = alpha' xhat + sigma' (rho ehat + sqrt(1 -
rho^2) eps), so signal and noise stay those of the schedule at any length of the step. They are for every scheduler.
`sde`, `dance` and `flash` discretise a stochastic differential equation of flow matching, and put in more noise than
the schedule says where steps are long.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.transitions.linear_steps import LinearStep

Noise = tuple[float, float]
"""(kappa, q)."""


@dataclass(frozen=True)
class Kernel:
    """One way to put noise into a step.

    Attributes:
        noise: (steps, k, eta) -> (kappa, q) of step k, not the last.
        eta: the default strength, as published.
        most: the largest eta that makes sense; None: no limit.
        flow_only: whether it is defined for flow matching alone.
    """

    noise: Callable[[Sequence[LinearStep], int, float], Noise]
    eta: float
    most: float | None = None
    flow_only: bool = False

    def check(self, name: str, steps: Sequence[LinearStep], eta: float) -> None:
        """Refuse a strength that it does not have, and steps that it is not for.

        Raises:
            PlanError: eta is not in 0 < eta <= most, or the steps are not of flow matching.
        """
        if isinstance(eta, bool) or not isinstance(eta, int | float) or not 0 < eta <= (self.most or math.inf):
            legal = f"a number above 0{f' and up to {self.most:g}' if self.most else ''}"
            raise PlanError("eta", eta, legal, f"leave it out: {name} has {self.eta:g}")
        if self.flow_only and any(abs(step.alpha + step.sigma - 1) > 1e-4 for step in steps):
            legal = f"cps, ddim or ou: {name} is an equation of flow matching, alpha + sigma = 1"
            raise PlanError("kernel", name, legal, "choose one of these, or a flow-matching model")


def _equation(step: LinearStep, after: LinearStep, h: float) -> Noise:
    """Euler-Maruyama: mu = x + v d + h^2 d / (2 s) (x + (1 - s) v), q = h sqrt(-d)."""
    d = after.sigma - step.sigma
    return h * h * d / (2 * step.sigma), h * math.sqrt(-d)


def _sde(steps: Sequence[LinearStep], k: int, eta: float) -> Noise:
    """Flow-GRPO (arXiv 2505.05470): h = eta sqrt(s / (1 - s)), with the second level below where s = 1."""
    step, after = steps[k], steps[k + 1]
    below = after.sigma if step.alpha < 1e-6 else step.sigma
    return _equation(step, after, eta * math.sqrt(step.sigma / (1 - below)))


def _dance(steps: Sequence[LinearStep], k: int, eta: float) -> Noise:
    """DanceGRPO (arXiv 2505.07818): h = eta."""
    return _equation(steps[k], steps[k + 1], eta)


def _flash(steps: Sequence[LinearStep], k: int, eta: float) -> Noise:
    """Flash-GRPO: h = eta s s_1, from 0 to the second level as s goes from 0 to 1."""
    return _equation(steps[k], steps[k + 1], eta * steps[1].sigma * steps[k].sigma)


def _mixed(after: LinearStep, rho: float) -> Noise:
    """alpha' xhat + sigma' (rho ehat + sqrt(1 - rho^2) eps), from a step to alpha' xhat + sigma' ehat."""
    return (rho - 1) * after.sigma, after.sigma * math.sqrt(1 - rho * rho)


def _cps(steps: Sequence[LinearStep], k: int, eta: float) -> Noise:
    """Coefficients-preserving sampling (arXiv 2509.05952): q = sigma' sin(eta pi / 2), the same share at every step."""
    return _mixed(steps[k + 1], math.cos(eta * math.pi / 2))


def _ddim(steps: Sequence[LinearStep], k: int, eta: float) -> Noise:
    """DDIM (arXiv 2010.02502, eq. 16): q = eta sigma' sqrt(1 - lambda^2); with eta = 1 the posterior of DDPM."""
    share = eta * math.sqrt(1 - _lambda(steps, k) ** 2)
    return _mixed(steps[k + 1], math.sqrt(max(1 - share * share, 0.0)))


def _ou(steps: Sequence[LinearStep], k: int, eta: float) -> Noise:
    """The exact solution of the equation of `sde` over the step with xhat held: rho = lambda^(eta^2 / 2).

    Two steps put in as much noise as one over both, so samples do not change with the number of stochastic steps.
    """
    return _mixed(steps[k + 1], _lambda(steps, k) ** (eta * eta / 2))


def _lambda(steps: Sequence[LinearStep], k: int) -> float:
    step, after = steps[k], steps[k + 1]
    return step.alpha * after.sigma / (after.alpha * step.sigma)


KERNELS = {
    "cps": Kernel(_cps, eta=0.8, most=1.0),
    "dance": Kernel(_dance, eta=0.3, flow_only=True),
    "ddim": Kernel(_ddim, eta=1.0, most=1.0),
    "flash": Kernel(_flash, eta=0.7, flow_only=True),
    "ou": Kernel(_ou, eta=0.7),
    "sde": Kernel(_sde, eta=0.7, flow_only=True),
}

"""What a scheduler's steps are made of, read off the scheduler: noise levels, predicted noise, the output's weight."""

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.posterior import noise_level, posterior_mean
from sdo_ray.backprop.solver import solver_weights, timesteps_of


@dataclass(frozen=True)
class LinearStep:
    """One step, in float64.

    Attributes:
        alpha: signal in the latents before the step.
        sigma: noise in them.
        clean_of_sample: d xhat / dz.
        clean_of_output: d xhat / do.
        weight: d step(z, o) / do, the output's own weight in its step.
        input_scale: what the scheduler multiplies latents by for the denoiser.
    """

    alpha: float
    sigma: float
    clean_of_sample: float
    clean_of_output: float
    weight: float
    input_scale: float = 1.0

    @property
    def noise_of_sample(self) -> float:
        """d ehat / dz."""
        return (1 - self.alpha * self.clean_of_sample) / self.sigma

    @property
    def noise_of_output(self) -> float:
        """d ehat / do."""
        return -self.alpha * self.clean_of_output / self.sigma


def linear_steps(scheduler: Any) -> list[LinearStep]:
    """The N steps of a scheduler into which noise can be put after any step but the last.

    Args:
        scheduler: with the timesteps of a call, as `sdo_ray.backprop.schedule.called_scheduler` returns it; it is not
            touched.

    Raises:
        PlanError: the steps are not linear (clipping, thresholding, tokens), have noise of their own, do not lower the
            noise level one by one (Heun's, PNDM's first), or lose noise that is put in between (UniPC's corrector and
            single-step solvers of higher order go back behind it, DEIS and LMS go on with old predictions of it).
        TraceError: the scheduler does not tell its noise levels.
    """
    for option in ("thresholding", "clip_sample"):
        if scheduler.config.get(option, False):
            raise _refused(scheduler, f"{option} is on: a step is not linear", f"load it with {option}=False")
    solver_weights(scheduler, None)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        steps = _read(copy.deepcopy(scheduler), scheduler)
        if any(b.sigma * a.alpha >= a.sigma * b.alpha for a, b in pairwise(steps)):
            what = "its steps do not lower the noise level one by one"
            raise _refused(scheduler, what, "use a solver of one step per noise level, such as Euler or DDIM")
        if not _keeps_noise(copy.deepcopy(scheduler), steps):
            what = "its steps lose noise that was put in before them"
            raise _refused(scheduler, what, "use Euler, DDIM or DPM++ 2M")
    return steps


def step_levels(scheduler: Any) -> list[LinearStep]:
    """The N steps of any scheduler whose steps are linear and have no noise of their own; see `linear_steps`.

    Raises:
        PlanError: they are not so.
        TraceError: the scheduler does not tell its noise levels.
    """
    solver_weights(scheduler, None)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        return _read(copy.deepcopy(scheduler), scheduler)


def _read(solver: Any, scheduler: Any) -> list[LinearStep]:
    steps, z = [], torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    one = torch.ones_like(z)
    for t in timesteps_of(solver):
        scale = solver.scale_model_input(one, t).item() if hasattr(solver, "scale_model_input") else 1.0
        alpha, sigma = (float(x) for x in noise_level(solver, t))
        of_sample = posterior_mean(solver, torch.zeros_like(z), t, one).item()
        of_output = posterior_mean(solver, one, t, torch.zeros_like(z)).item()
        o = torch.zeros_like(z, requires_grad=True)
        z = solver.step(o, t, z, return_dict=False)[0].double()
        (weight,) = torch.autograd.grad(z.sum(), o, allow_unused=True, retain_graph=True)
        z = z.detach()
        if z.item():
            raise _refused(scheduler, "its steps have noise of their own", "use its deterministic form, such as Euler")
        own = 0.0 if weight is None else weight.item()
        steps.append(LinearStep(alpha, sigma, of_sample, of_output, own, scale))
    return steps


def _keeps_noise(solver: Any, steps: list[LinearStep]) -> bool:
    """Whether noise that is put in after a step is there one step later, for a denoiser that knows x_0 = 0.

    Without fresh noise its latents are sigma_i. Twice as much must stay more than what would be there without.
    """
    z = torch.full((1, 1, 1, 1), steps[0].sigma, dtype=torch.float64)
    with torch.no_grad():
        for i, t in enumerate(timesteps_of(solver)[:-1]):
            if i and not _stepped(copy.deepcopy(solver), steps[i], t, 2 * z) > 1.5 * steps[i + 1].sigma:
                return False
            z = _stepped(solver, steps[i], t, z)
    return True


def _stepped(solver: Any, step: LinearStep, t: Any, z: torch.Tensor) -> torch.Tensor:
    """`z` one step on, with the output that says xhat = 0."""
    if hasattr(solver, "scale_model_input"):
        solver.scale_model_input(z, t)
    o = -step.clean_of_sample / step.clean_of_output * z
    return solver.step(o, t, z, return_dict=False)[0].double()


def _refused(scheduler: Any, what: str, fix: str) -> PlanError:
    legal = "a deterministic solver with linear steps, between which noise can be put in"
    return PlanError("scheduler", f"{type(scheduler).__name__}: {what}", legal, fix)

"""The scalars of the solver: how the final latents depend on the initial ones and on every denoiser output.

Notation
    z_0   initial latents as the scheduler expects them (noise times `init_noise_sigma`);  z_N  the final latents
    o_i   what `scheduler.step` is given as model output at step i, i = 0 .. N-1
    a, w  z_N = a z_0 + sum_i w_i o_i (+ noise terms of a stochastic sampler): a = dz_N/dz_0, w_i = dz_N/do_i

ODE solvers are linear in latents and outputs, past outputs included, so a and w are constants of (scheduler, N).
"""

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch

from sdo_ray.backprop.errors import PlanError


@dataclass(frozen=True, eq=False)
class SolverWeights:
    """z_N = a z_0 + sum_i w_i o_i.

    Attributes:
        a: dz_N/dz_0.
        w: [N] float64, w_i = dz_N/do_i.
    """

    a: float
    w: torch.Tensor

    @property
    def num_steps(self) -> int:
        """N, the steps the scheduler takes; it may differ from `num_inference_steps` (Heun: 2 n - 1)."""
        return len(self.w)

    def of_one_sign(self) -> "SolverWeights":
        """Itself, for estimators that divide by weights or read time off them.

        Raises:
            PlanError: some weights are zero, or they differ in sign (PNDM's start, for example).
        """
        if not (self.w.gt(0).all() or self.w.lt(0).all()):
            legal = "a solver whose outputs all count in the same direction"
            raise PlanError("weights", [round(x, 4) for x in self.w.tolist()], legal, "use another scheduler")
        return self


def solver_weights(scheduler: Any, num_steps: int | None, **timesteps: Any) -> SolverWeights:
    """Read the solver's scalars off the scheduler, by running a copy of it on one-element tensors.

    Args:
        scheduler: a diffusers scheduler; it is not touched.
        num_steps: `num_inference_steps` of the pipeline call; None for a scheduler whose timesteps are set, as
            `sdo_ray.backprop.schedule.called_scheduler` returns it. The step's other arguments keep their defaults (a
            pipeline that passes `eta` to a stochastic scheduler has other weights).
        timesteps: passed on to `set_timesteps` (`mu` for flow schedulers with dynamic shifting, `sigmas`, ...).

    Returns:
        SolverWeights, float64. Their length is the number of calls of `scheduler.step`.

    Raises:
        PlanError: the scheduler is not linear in the latents (thresholding; clipping is read as if inactive, inside
            its range it is linear), cannot be stepped on continuous latents, or needs more arguments for
            `set_timesteps`.
    """
    if scheduler.config.get("thresholding", False):
        raise PlanError("scheduler.thresholding", True, "False: thresholding is not linear", "turn thresholding off")
    try:
        a, w = _probe(scheduler, num_steps, timesteps)
    # Whatever a scheduler of another kind (tokens, masks, extra arguments) trips over.
    except Exception as error:
        fix = f"use another scheduler, or pass what its set_timesteps needs ({error!r})"
        raise _not_linear(scheduler, fix) from error
    if not any(w):
        raise _not_linear(scheduler, "use another scheduler: this one's result has no derivative")
    return SolverWeights(a=a, w=torch.tensor(w, dtype=torch.float64))


def timesteps_of(scheduler: Any) -> torch.Tensor:
    """Those that a call takes: all that are set, or, of what `called_scheduler` returns, the last ones of them.

    The others stay set, as multistep solvers count them.
    """
    found: torch.Tensor = getattr(scheduler, "called_timesteps", scheduler.timesteps)
    return found


def _probe(scheduler: Any, num_steps: int | None, timesteps: dict[str, Any]) -> tuple[float, list[float]]:
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        if num_steps is None:
            solver = copy.deepcopy(scheduler)
        else:
            # From its config, not a deepcopy: the scheduler may hold the state, even the graph, of a call in progress.
            solver = type(scheduler).from_config(copy.deepcopy(dict(scheduler.config)))
            solver.set_timesteps(num_steps, **timesteps)
        # Without clipping: the noise of a stochastic sampler would drive the probe out of the range where it is linear.
        solver.register_to_config(clip_sample=False)
        z_0 = torch.zeros(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
        steps = list(timesteps_of(solver))
        o = [torch.zeros_like(z_0, requires_grad=True) for _ in steps]
        z = z_0
        # UnCLIP's scheduler is told by its pipelines where a step ends, and takes the timestep before for it else.
        told = "prev_timestep" in inspect.signature(solver.step).parameters
        for o_i, t, after in zip(o, steps, [*steps[1:], None], strict=True):
            if hasattr(solver, "scale_model_input"):
                solver.scale_model_input(z, t)  # Some schedulers find their place in the schedule here.
            ends = {"prev_timestep": after} if told else {}
            z = solver.step(o_i, t, z, return_dict=False, **ends)[0].to(torch.float64)
        d_z, *d_o = torch.autograd.grad(z.sum(), [z_0, *o], allow_unused=True)
    # What z_N does not use has weight 0, for example the last half-step of some multistep starts.
    return (0.0 if d_z is None else d_z.item()), [0.0 if d is None else d.item() for d in d_o]


def _not_linear(scheduler: Any, fix: str) -> PlanError:
    legal = "a scheduler whose step(model_output, timestep, sample) is linear in both tensors"
    return PlanError("scheduler", type(scheduler).__name__, legal, fix)

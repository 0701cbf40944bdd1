"""One stochastic step as five numbers: its mean, its standard deviation, and how its mean follows the output."""

from dataclasses import dataclass
from typing import Any

import torch

from sdo_ray.backprop.errors import PlanError
from sdo_ray.backprop.transitions.kernels import KERNELS
from sdo_ray.backprop.transitions.linear_steps import linear_steps


@dataclass(frozen=True)
class Transition:
    """z' = mu + q eps of one step.

    Attributes:
        of_sample: d(mu - step(z, o)) / dz, kappa d ehat / dz.
        of_output: d(mu - step(z, o)) / do, kappa d ehat / do.
        std: q > 0.
        weight: c = d mu / do.
        length: sigma - sigma' > 0, by how much the noise level falls; -d for flow matching.
    """

    of_sample: float
    of_output: float
    std: float
    weight: float
    length: float

    def mean(self, stepped: torch.Tensor, z: torch.Tensor, o: torch.Tensor) -> torch.Tensor:
        """mu, float32 or more, differentiable in all three.

        Args:
            stepped: step(z, o), what the scheduler returned, [B, C, ...].
            z: latents before the step, of the same shape.
            o: model output, likewise; with learned variance [B, 2 C, ...], of which the mean half is used.
        """
        o = o[:, : z.shape[1]] if o.dim() > 1 else o
        precise = torch.promote_types(stepped.dtype, torch.float32)
        return stepped.to(precise) + self.of_sample * z.to(precise) + self.of_output * o.to(precise)


def transitions(scheduler: Any, kernel: str, eta: float | None = None) -> list[Transition]:
    """The transitions of steps 0 .. N-2; the last step, which ends without noise, has none.

    Args:
        scheduler: with the timesteps of a call, as `sdo_ray.backprop.schedule.called_scheduler` returns it.
        kernel: a name in `KERNELS`.
        eta: its strength; None is the kernel's default.

    Raises:
        PlanError: an unknown kernel, a strength out of range, a kernel that is not for this scheduler, or a scheduler
            that takes no noise between its steps, see `linear_steps`.
    """
    if kernel not in KERNELS:
        raise PlanError("kernel", kernel, f"one of {', '.join(KERNELS)}", "choose one")
    chosen, steps = KERNELS[kernel], linear_steps(scheduler)
    eta = chosen.eta if eta is None else eta
    chosen.check(kernel, steps, eta)
    made = []
    for k, step in enumerate(steps[:-1]):
        kappa, q = chosen.noise(steps, k, eta)
        of_sample, of_output = kappa * step.noise_of_sample, kappa * step.noise_of_output
        length = step.sigma - steps[k + 1].sigma
        made.append(Transition(of_sample, of_output, q, step.weight + of_output, length))
    return made

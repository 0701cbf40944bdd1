"""Samplers of few steps by their coefficients: diffusers' own, with DualFast's correction, and fitted as OLSS does.

Notation
    z_0           initial latents;  o_j  guided output of the denoiser, a prediction of the noise, at step j
    a_i, w_ij     z_{i+1} = a_i z_0 + sum_{j <= i} w_ij o_j: what every solver of an ODE comes to, step by step

`coefficients` reads them off a scheduler, `ddim` computes them for time steps that diffusers' cannot be given.
`dual_fast` puts o_j + c (o_j - o_0) in place of o_j, and `Fitting` finds them by least squares on a longer trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput


class LinearSolver(DDIMScheduler):
    """A scheduler that steps by given coefficients, for one call of a pipeline at a time.

    `of` makes one.
    """

    rows: torch.Tensor
    """[n, 1 + n] float64, a row [a_i, w_i0, ..] for each step."""

    @classmethod
    def of(cls, scheduler: Any, times: Sequence[int], rows: torch.Tensor | None = None) -> LinearSolver:
        """One for a model.

        Args:
            scheduler: the model's.
            times: the n time steps, from noise to image.
            rows: see `LinearSolver`; may be set later.
        """
        made: LinearSolver = cls.from_config(scheduler.config)
        made._times = torch.tensor(list(times))
        if rows is not None:
            made.rows = rows
        return made

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None, timesteps: Any = None) -> None:
        """Begin a call; the time steps are its own, whatever is given."""
        self.timesteps, self.num_inference_steps = self._times.to(device), len(self._times)
        self._parts: list[torch.Tensor] = []

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *, return_dict: bool = True) -> Any:
        """z_{i+1}, of the type of z_i."""
        self._parts += [model_output] if self._parts else [sample, model_output]
        row = self._row(len(self._parts) - 2)
        made = sum(weight * part for weight, part in zip(row.tolist(), self._parts, strict=False))
        return DDIMSchedulerOutput(prev_sample=made) if return_dict else (made,)

    def _row(self, step: int) -> torch.Tensor:
        return self.rows[step, : step + 2]


class Fitting(LinearSolver):
    """Finds its coefficients in one call: at each step those whose latents, of all samples of the call together, are
    nearest to `targets` [n, B, ...]. Optimal linear subspace search (OLSS, arXiv 2305.14677)."""

    targets: torch.Tensor

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None, timesteps: Any = None) -> None:
        """See `LinearSolver`."""
        super().set_timesteps(num_inference_steps, device)
        self.rows = torch.zeros(len(self._times), len(self._times) + 1, dtype=torch.float64)

    def _row(self, step: int) -> torch.Tensor:
        known = torch.stack([part.detach().double().flatten() for part in self._parts], 1)
        target = self.targets[step].double().flatten()
        self.rows[step, : step + 2] = torch.linalg.lstsq(known, target, driver="gelsd").solution
        return super()._row(step)


def coefficients(scheduler: Any, times: Sequence[int]) -> torch.Tensor:
    """Those of a scheduler whose time steps are set: [n, 1 + n] float64, see `LinearSolver.rows`.

    Its latents are run as vectors with a place for z_0 and for each output.
    """
    n = len(times)
    basis = torch.eye(n + 1, dtype=torch.float64).view(n + 1, 1, n + 1, 1, 1)
    z, rows = basis[0], []
    for output, t in zip(basis[1:], times, strict=True):
        z = scheduler.step(output, t, z, return_dict=False)[0].double()
        rows.append(z.flatten())
    return torch.stack(rows)


def ddim(scheduler: Any, times: Sequence[int]) -> torch.Tensor:
    """Those of DDIM (arXiv 2010.02502, eq. 12 without noise) over any time steps, of a model that predicts noise."""
    alphas = [float(scheduler.alphas_cumprod[t]) for t in times] + [float(scheduler.final_alpha_cumprod)]
    row, rows = torch.eye(1, len(times) + 1, dtype=torch.float64)[0], []
    for i in range(len(times)):
        here, there = alphas[i], alphas[i + 1]
        row = row * (there / here) ** 0.5
        row[i + 1] += (1 - there) ** 0.5 - (there / here * (1 - here)) ** 0.5
        rows.append(row.clone())
    return torch.stack(rows)


def dpm_solver(scheduler: Any, times: Sequence[int]) -> torch.Tensor:
    """Those of DPM-Solver++ 2M (arXiv 2211.01095), by diffusers."""
    solver = DPMSolverMultistepScheduler.from_config(scheduler.config)
    solver.set_timesteps(timesteps=list(times))
    return coefficients(solver, times)


def uni_pc(scheduler: Any, times: Sequence[int]) -> torch.Tensor:
    """Those of UniPC (arXiv 2302.04867), by diffusers."""
    solver = UniPCMultistepScheduler.from_config(scheduler.config)
    solver.set_timesteps(len(times))
    alphas = scheduler.alphas_cumprod[list(times)]
    # Its own `set_timesteps` takes none.
    solver.timesteps = torch.tensor(list(times))
    solver.sigmas = torch.cat([((1 - alphas) / alphas) ** 0.5, torch.zeros(1)])
    return coefficients(solver, times)


def dual_fast(rows: torch.Tensor, c: float) -> torch.Tensor:
    """A solver's coefficients with o_j + c (o_j - o_0) in place of o_j.

    DualFast (arXiv 2506.13058) mixes a prediction of the noise with the first one, which it takes to be the nearest to
    the truth; c is a constant of its sampler.
    """
    mixed = rows.clone()
    mixed[:, 1:] *= 1 + c
    mixed[:, 1] -= c * rows[:, 1:].sum(1)
    return mixed

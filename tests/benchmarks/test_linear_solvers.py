"""A solver by its coefficients is the solver; a fit is the best there is."""

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from benchmarks.linear_solvers import Fitting, LinearSolver, coefficients, ddim, dpm_solver, dual_fast, uni_pc
from tests.backprop.tiny import seeded

N = 8
MODEL = DDIMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
)
MODEL.set_timesteps(N)
TIMES = MODEL.timesteps.tolist()


def run(scheduler: DDIMScheduler, batch: int = 2, **given: object) -> torch.Tensor:
    """Latents after each step, [n, B, 4], of a denoiser that is not linear."""
    scheduler.set_timesteps(**given)
    z, made = torch.randn(batch, 4, 1, 1, generator=seeded(1), dtype=torch.float64), []
    for t in scheduler.timesteps:
        z = scheduler.step(torch.tanh(2 * z + t / 1000), t, z, return_dict=False)[0]
        made.append(z.flatten(1))
    return torch.stack(made)


def test_coefficients_of_a_scheduler_step_as_it_does() -> None:
    expected = run(MODEL, num_inference_steps=N)
    for rows in (coefficients(MODEL, TIMES), ddim(MODEL, TIMES)):
        assert torch.allclose(run(LinearSolver.of(MODEL, TIMES, rows)), expected, atol=1e-5)
    solver = DPMSolverMultistepScheduler.from_config(MODEL.config)
    expected = run(solver, timesteps=TIMES[::2])
    assert torch.allclose(run(LinearSolver.of(MODEL, TIMES[::2], dpm_solver(MODEL, TIMES[::2]))), expected, atol=1e-5)
    own = UniPCMultistepScheduler.from_config(MODEL.config)
    expected = run(own, num_inference_steps=5)
    times = own.timesteps.tolist()
    assert torch.allclose(run(LinearSolver.of(MODEL, times, uni_pc(MODEL, times))), expected, atol=1e-4)


def test_the_correction_is_of_every_output_but_the_first() -> None:
    rows, o, c = ddim(MODEL, TIMES), torch.randn(N, generator=seeded(), dtype=torch.float64), 0.3
    mixed = o + c * (o - o[0])
    assert torch.allclose(dual_fast(rows, c)[:, 1:] @ o, rows[:, 1:] @ mixed)
    assert torch.equal(dual_fast(rows, 0.0), rows)


@pytest.mark.parametrize("every", [2, 3])
def test_a_fit_comes_nearest_to_the_longer_trajectory(every: int) -> None:
    times = TIMES[::every]
    targets = run(MODEL, batch=64, num_inference_steps=N)
    targets = torch.stack([targets[min((i + 1) * every, N) - 1] for i in range(len(times))])
    fitting = Fitting.of(MODEL, times)
    fitting.targets = targets
    fitted = run(fitting, batch=64)
    coarse = run(LinearSolver.of(MODEL, times, ddim(MODEL, times)), batch=64)
    assert torch.allclose(run(LinearSolver.of(MODEL, times, fitting.rows), batch=64), fitted)
    assert (fitted - targets)[-1].norm() < 0.5 * (coarse - targets)[-1].norm()
    # No change of the last step's coefficients comes nearer.
    last = fitting.rows[-1].clone()
    for seed in range(3):
        fitting.rows[-1] = last + 1e-3 * torch.randn(len(last), generator=seeded(seed), dtype=torch.float64)
        moved = run(LinearSolver.of(MODEL, times, fitting.rows), batch=64)
        assert (moved - targets)[-1].norm() > (fitted - targets)[-1].norm()

"""The posterior mean: the model's estimate of the clean latents from one step, in any scheduler's terms.

Notation (z is what the scheduler is given as `sample`, o as `model_output`)
    alpha, sigma   z = alpha x_0 + sigma eps, eps standard normal
        alphas_cumprod A_t (DDPM, DDIM, PNDM, LCM, TCD)       alpha = sqrt(A_t), sigma = sqrt(1 - A_t)
        sigmas, variance preserving (DPM-Solver, UniPC, DEIS) the scheduler's `_sigma_to_alpha_sigma_t`
        sigmas, variance exploding (Euler, Heun, LMS, KDPM2)  alpha = 1, sigma = sigmas[i]
        flow matching                                         alpha = 1 - sigma, sigma = sigmas[i]
    xhat           E[x_0 | z], by what the model predicts
        epsilon   (z - sigma o) / alpha
        sample     o
        v         (alpha z - r sigma o) / r^2,  r = sqrt(alpha^2 + sigma^2): 1 if variance preserving
        flow       z - sigma o
"""

from typing import Any

import torch

from sdo_ray.backprop.errors import TraceError


def noise_level(scheduler: Any, t: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(alpha, sigma) of the latents that the scheduler is about to step from, 0-dim tensors.

    Call it before `scheduler.step`.

    Raises:
        TraceError: the scheduler keeps neither `sigmas` nor `alphas_cumprod`.
    """
    sigmas = getattr(scheduler, "sigmas", None)
    if isinstance(sigmas, torch.Tensor) and hasattr(scheduler, "step_index"):
        sigma = _sigma(scheduler, sigmas, t)
        if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
            return scheduler._sigma_to_alpha_sigma_t(sigma)
        return (1 - sigma if _is_flow(scheduler) else torch.ones_like(sigma)), sigma
    if hasattr(scheduler, "alphas_cumprod"):
        A_t = scheduler.alphas_cumprod[int(t)]
        return A_t**0.5, (1 - A_t) ** 0.5
    raise _unknown(scheduler, "its noise levels")


def posterior_mean(scheduler: Any, o: torch.Tensor, t: Any, z: torch.Tensor) -> torch.Tensor:
    """E[x_0 | z] from the model output, without the scheduler's clipping; call it before `scheduler.step`.

    Args:
        scheduler: a diffusers scheduler with its timesteps set.
        o: `model_output`, [B, C, ...]; with learned variance [B, 2 C, ...], of which the mean half is used.
        t: `timestep`.
        z: `sample`, [B, C, ...].

    Raises:
        TraceError: the scheduler's noise levels or its prediction type are not known here.
    """
    if o.dim() > 1 and o.shape[1] == 2 * z.shape[1]:
        o = o[:, : z.shape[1]]
    alpha, sigma = (x.to(device=z.device, dtype=z.dtype) for x in noise_level(scheduler, t))
    if hasattr(scheduler, "precondition_outputs"):
        return scheduler.precondition_outputs(z, o, sigma)
    kind = "flow_prediction" if _is_flow(scheduler) else scheduler.config.get("prediction_type", "epsilon")
    if kind == "epsilon":
        return (z - sigma * o) / alpha
    if kind in ("sample", "original_sample"):
        return o
    if kind == "v_prediction":
        r = (alpha**2 + sigma**2) ** 0.5
        return (alpha * z - r * sigma * o) / r**2
    if kind == "flow_prediction":
        return z - sigma * o
    raise _unknown(scheduler, f"its prediction type {kind!r}")


def _is_flow(scheduler: Any) -> bool:
    config = scheduler.config
    return config.get("prediction_type", "flow_prediction") == "flow_prediction"


def _sigma(scheduler: Any, sigmas: torch.Tensor, t: Any) -> torch.Tensor:
    if hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order:
        # KDPM2's half steps lie between the sigmas; it divides by sqrt(sigma^2 + 1) for the denoiser's input.
        return (scheduler.scale_model_input(torch.ones((), dtype=torch.float64), t) ** -2 - 1) ** 0.5
    return sigmas[_place(scheduler, t)]


def _place(scheduler: Any, t: Any) -> int:
    if scheduler.step_index is not None:
        return scheduler.step_index
    # The first step: the scheduler looks its place up only when it makes the step.
    return scheduler.index_for_timestep(t) if scheduler.begin_index is None else scheduler.begin_index


def _unknown(scheduler: Any, what: str) -> TraceError:
    return TraceError(
        "scheduler",
        type(scheduler).__name__,
        f"a scheduler that tells {what}",
        "use an estimator whose reward sees the sample, or another scheduler",
    )

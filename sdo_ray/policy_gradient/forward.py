"""Forward-process methods: samples are noised again, and what the denoiser makes of that is moved; no probabilities.

Notation
    x0           a sample's final latents;  e  fresh noise;  x_t = alpha x0 + sigma e  at the noise level of a kept step
    o, xhat(o)   the denoiser's output at x_t, and the clean latents that it predicts, linear in o
    o_avg        the output of an average of earlier policies;  o*  the output with xhat(o*) = x0
    a            the sample's advantage

Written through xhat, so that what a model predicts (noise, velocity, samples) makes no difference. A sample without an
advantage, which has no score or is as good as the others of its group, has no part.
"""

import statistics
from collections.abc import Mapping, Sequence

import torch

from sdo_ray.backprop.transitions import LinearStep
from sdo_ray.policy_gradient.off_policy import Outputs
from sdo_ray.policy_gradient.plan import PolicyPlan


def nft_loss(
    xhat: torch.Tensor, xhat_avg: torch.Tensor, x0: torch.Tensor, a: torch.Tensor, b: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """DiffusionNFT (arXiv 2509.16117), [B]: of two policies on both sides of the average, the better is fitted.

        y+ = b xhat + (1 - b) xhat_avg,   y- = (1 + b) xhat_avg - b xhat,   p = clamp(a / 5, -1, 1) / 2 + 1 / 2
        5 / b [ p |y+ - x0|^2 / w+ + (1 - p) |y- - x0|^2 / w- ],   w = mean |y - x0| without a gradient, at least 1e-5

    Args:
        xhat: [B, ...], float32.
        xhat_avg: likewise, without a gradient: of the policy that sampled.
        x0: the samples.
        a: [B].
        b: how far to both sides, above 0.

    Returns:
        The loss and p.
    """
    p = (a / 5).clamp(-1, 1) / 2 + 0.5
    total = torch.zeros_like(p)
    for share, y in ((p, b * xhat + (1 - b) * xhat_avg), (1 - p, (1 + b) * xhat_avg - b * xhat)):
        far = (y - x0).flatten(1)
        w = far.detach().double().abs().mean(1).clamp_min(1e-5).to(far.dtype)
        total = total + share * far.square().mean(1) / w
    return 5 / b * total, p


def awm_loss(o: torch.Tensor, target: torch.Tensor, a: torch.Tensor, t: float, power: float) -> torch.Tensor:
    """Advantage-weighted matching (arXiv 2509.25050), [B], on-policy: a / 5 times a distance that grows slower than l,

        l = mean (o - o*)^2,   t / p ((l + 1e-10)^p - 1e-10^p)

    Args:
        o: [B, ...], float32.
        target: o*, likewise.
        a: [B].
        t: the noise level, 0 .. 1.
        power: p, above 0; 1 is t l.
    """
    distance = (o - target).square().flatten(1).mean(1)
    return a / 5 * t / power * ((distance + 1e-10) ** power - 1e-10**power)


def forward_cotangents(
    plan: PolicyPlan,
    levels: Sequence[LinearStep],
    noised: Mapping[int, torch.Tensor],
    x0: torch.Tensor,
    step_advantages: Mapping[int, torch.Tensor],
    now: Outputs,
    average: Outputs,
    base: Outputs | None,
) -> tuple[dict[int, torch.Tensor], dict[str, float]]:
    """Kept step -> which way the output at its noised latents should move, float32 [B, C, ...].

    Args:
        plan: of the batch, with `forward`.
        levels: of the steps.
        noised: x_t of each kept step, [B, C, ...].
        x0: the samples.
        step_advantages: from `cotangents.step_advantages`.
        now: outputs at x_t by the policy that learns.
        average: by the average.
        base: by the base model, for a plan that is anchored to it.

    Returns:
        The cotangents; and for the report the `deviation` mean (o - o_avg)^2, and of NFT the `contrast`, the standard
        deviation of p.
    """
    how = plan.forward
    assert how is not None
    found, deviations, contrasts = {}, list[float](), list[float]()
    x0 = x0.float().cpu()
    for k, advantages in step_advantages.items():
        step, x_t, channels = levels[k], noised[k].float().cpu(), x0.shape[1]
        o, o_avg = (made[k][:, :channels].detach().float().cpu() for made in (now, average))
        o.requires_grad_()
        a, taught = advantages.float(), (advantages != 0).float()
        apart = (o - o_avg).square().flatten(1).mean(1)
        if how.kind == "nft":
            xhat, xhat_avg = (step.clean_of_sample * x_t + step.clean_of_output * made for made in (o, o_avg))
            loss, p = nft_loss(xhat, xhat_avg, x0, a, how.b)
            contrasts.append(p[taught > 0].std(correction=0).item() if taught.any() else 0.0)
        else:
            target = (x0 - step.clean_of_sample * x_t) / step.clean_of_output
            loss = awm_loss(o, target, a, step.sigma / (step.alpha + step.sigma), how.power)
        loss = loss + how.pull * apart
        if base is not None:
            reference = base[k][:, :channels].detach().float().cpu()
            loss = loss + plan.output_kl * (o - reference).square().flatten(1).mean(1)
        (g,) = torch.autograd.grad((taught * loss).sum(), o)
        found[k] = -g
        deviations.append(apart.mean().item())
    numbers = {"deviation": statistics.fmean(deviations)}
    return found, numbers | ({"contrast": statistics.fmean(contrasts)} if contrasts else {})

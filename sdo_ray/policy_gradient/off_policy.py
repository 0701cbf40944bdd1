"""What is learned where the policy that learns is not the one that sampled, and what holds it near the base model.

Notation
    o, o_old, o_ref   a kept step's output by the policy that learns, by that which sampled, and by the base model
    u                 which way o should move;  w  the step's weight

    u = - w d loss / d o,   - beta d KL(mu, mu_ref) / d o - beta_o d mean (o - o_ref)^2 / d o

As in `cotangents`, rows that are still one after a step have one probability, which counts once.
"""

import statistics
from collections.abc import Mapping, Sequence

import torch

from sdo_ray.backprop.transitions import StochasticSteps, Transition
from sdo_ray.policy_gradient.losses import LOSSES, Drift, gaussian_kl, output_distance
from sdo_ray.policy_gradient.plan import PolicyPlan
from sdo_ray.policy_gradient.step_weights import step_weight

Outputs = Mapping[int, torch.Tensor]
"""Kept step -> o, [B, C, ...] (more channels than latents have are not looked at)."""


def drifted_cotangents(
    plan: PolicyPlan,
    transitions: Sequence[Transition],
    made: StochasticSteps,
    step_advantages: Mapping[int, torch.Tensor],
    now: Outputs,
    then: Outputs,
) -> tuple[dict[int, torch.Tensor], dict[str, float]]:
    """Kept step -> u of the plan's loss, float32 [B, C, ...].

    Where `now` is `then` that is `policy_cotangents` (times q / -d for `guard`).

    Args:
        plan: of the batch, with a loss that corrects.
        transitions: of steps 0 .. N-2.
        made: after the call, with its noise.
        step_advantages: from `cotangents.step_advantages`.
        now: by the policy that learns.
        then: by the policy that sampled.

    Returns:
        The cotangents; and for the report `log_ratio`, mean |log ratio| of the rows that have an advantage, and
        `clipped` or `masked`, the share of these that has moved far enough and is given no gradient.
    """
    found, ratios, stopped = {}, list[float](), list[float]()
    for k, a in step_advantages.items():
        eps, channels = made.noise[k], made.noise[k].shape[1]
        o = now[k][:, :channels].detach().to("cpu", torch.float32).requires_grad_()
        old = then[k][:, :channels].detach().to("cpu", torch.float32)
        drift = Drift.of(transitions[k], eps, o, old)
        loss = LOSSES[plan.loss](drift, a.to(eps.dtype), plan.clip)
        (g,) = torch.autograd.grad(loss.sum(), o)
        w = step_weight(plan.weight, transitions, k, plan.pool or plan.kept) / made.branching.same_after(k)
        found[k] = -w * g
        taught = a != 0
        if taught.any():
            still = g.flatten(1).abs().amax(1) > 0
            ratios.append(drift.log_ratio.detach()[taught].abs().mean().item())
            stopped.append((~still[taught]).double().mean().item())
    if not ratios:
        return found, {}
    name = "masked" if plan.loss == "dppo" else "clipped"
    return found, {"log_ratio": statistics.fmean(ratios), name: statistics.fmean(stopped)}


def anchor_cotangents(
    plan: PolicyPlan, transitions: Sequence[Transition], made: StochasticSteps, now: Outputs, base: Outputs
) -> tuple[dict[int, torch.Tensor], dict[str, float]]:
    """Kept step -> u of `plan.kl` and `plan.output_kl`, float32 [B, C, ...]; and `kl`, the mean KL, for the report.

    Args:
        plan: of the batch.
        transitions: of steps 0 .. N-2.
        made: after the call, with its noise.
        now: by the policy that learns.
        base: by the base model.
    """
    found, kls = {}, list[float]()
    for k in plan.kept:
        channels = made.noise[k].shape[1]
        o = now[k][:, :channels].detach().to("cpu", torch.float32).requires_grad_()
        reference = base[k][:, :channels].detach().to("cpu", torch.float32)
        kl = gaussian_kl(transitions[k], o, reference)
        loss = plan.kl * kl + plan.output_kl * output_distance(o, reference)
        (g,) = torch.autograd.grad(loss.sum(), o)
        found[k] = -g / made.branching.same_after(k)
        kls.append(kl.mean().item())
    return found, {"kl": statistics.fmean(kls)}

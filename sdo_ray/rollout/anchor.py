"""An anchor to the base model: at each kept step the scheduler's input is pulled to what the base model would give.

Notation
    o      [B, ...], the scheduler's input at a kept step, guidance combined
    o_ref  the base model's, at the same latents
    D      elements of o a sample;  lambda  the weight, in units of the mixed reward

    R_b  becomes  R_b - lambda sum_k mean_D (o_k - o_ref)^2        u = -2 lambda (o - o_ref) / D

o_ref costs one more denoiser call a kept step, without a graph. Whatever a reward says far from the base model, at
noise levels and prompts that are trained on, this holds what is drawn near it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import torch

from sdo_ray.backprop.remade import outputs_again
from sdo_ray.policy_gradient import output_distance
from sdo_ray.rollout.objective import Cotangents
from sdo_ray.rollout.other_policies import Weights, weights_in_place
from sdo_ray.rollout.sampling import Trajectory


def anchored(
    trajectory: Trajectory,
    denoisers: Mapping[str, torch.nn.Module],
    base: Weights,
    weight: float,
    valid: torch.Tensor,
) -> tuple[Cotangents, float]:
    """The anchor's cotangents, and the distance for the report: sum over kept steps, mean over samples and elements.

    Args:
        trajectory: with kept calls, before its backward pass.
        denoisers: with the weights that sampled; they are left as found.
        base: what is trained, as it is in the base model.
        weight: lambda.
        valid: bool [B]: samples that count.
    """
    outputs = [kept.o for kept in trajectory.outputs]
    with weights_in_place(denoisers, base):
        references, _ = outputs_again(outputs, trajectory.calls, denoisers)
    pulls, distances = [], list[torch.Tensor]()
    for kept, reference in zip(trajectory.outputs, references, strict=True):
        precise = torch.promote_types(kept.o.dtype, torch.float32)
        o = kept.o.detach().to(precise).requires_grad_()
        distance = output_distance(o, reference.to(precise))
        (g,) = torch.autograd.grad(distance[valid.to(o.device)].sum(), o)
        pulls.append((kept, -weight * g))
        distances.append(distance.detach())
    return Cotangents(None, pulls), statistics.fmean(torch.stack(distances).sum(0).tolist())

"""A trajectory whose kept calls are of its samples, noised again to the levels of the kept steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from sdo_ray.backprop import TraceError
from sdo_ray.backprop.remade import check_guidance, with_latents
from sdo_ray.backprop.transitions import LinearStep
from sdo_ray.rollout.sampling import Trajectory

Noised = Mapping[int, torch.Tensor]
"""Kept step -> x_t = alpha x0 + sigma e, [B, C, ...]."""


def noised_again(
    trajectory: Trajectory, levels: Sequence[LinearStep], generators: Sequence[torch.Generator]
) -> tuple[Trajectory, Noised]:
    """The trajectory with other latents in its kept calls, which are yet to be made; and these latents.

    Args:
        trajectory: with kept calls, and the latents before its kept steps recorded.
        levels: of its steps.
        generators: of the samples' fresh noise e, on the CPU.

    Raises:
        TraceError: a denoiser is called with other latents than the scheduler's, or the pipeline does more with its
            outputs than guidance.
    """
    made = trajectory.stochastic
    assert made is not None
    x0, latents = made.newest[0], made.latents
    check_guidance([kept.o for kept in trajectory.outputs], trajectory.calls)
    noised = {}
    for k in latents:
        e = torch.stack([torch.randn(x0.shape[1:], generator=generator) for generator in generators])
        noised[k] = levels[k].alpha * x0.float() + levels[k].sigma * e.to(x0.device)
    calls = []
    for call in trajectory.calls:
        found = (
            with_latents(call, z * levels[k].input_scale, noised[k] * levels[k].input_scale) for k, z in latents.items()
        )
        other = next((one for one in found if one is not None), None)
        if other is None:
            legal = "latents passed on as they are, scaled by the scheduler, repeated for guidance"
            got = "a denoiser whose input is not the scheduler's latents"
            raise TraceError("pipeline", got, legal, "use plan group")
        calls.append(other)
    return replace(trajectory, calls=tuple(calls)), noised

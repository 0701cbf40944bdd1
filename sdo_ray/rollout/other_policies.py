"""What other weights than those that sampled make of a trajectory's kept steps: the newest policy, the base model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from sdo_ray.backprop.remade import outputs_again, renew
from sdo_ray.models.parameters import set_parameters, trained_values
from sdo_ray.policy_gradient import Outputs
from sdo_ray.rollout.noised import Noised
from sdo_ray.rollout.sampling import Trajectory

Weights = Mapping[str, torch.Tensor]
"""Of what is trained, named as in `sdo_ray.models.parameters.trained_parameters`."""


@dataclass(frozen=True, eq=False)
class OtherOutputs:
    """Of one trajectory, without a graph."""

    sampled: Outputs
    """By the policy that sampled."""
    newest: Outputs
    """By the policy that learns."""
    others: Mapping[str, Outputs]
    """By weights that have a name: "base", "average"."""
    noised: Noised | None = None
    """The latents that these outputs are of, where they are not those of the sampling."""


def other_outputs(
    trajectory: Trajectory,
    denoisers: Mapping[str, torch.nn.Module],
    *,
    newer: bool,
    weights: Mapping[str, Weights],
    noised: Noised | None = None,
) -> OtherOutputs:
    """Make the kept steps again.

    Args:
        trajectory: with kept calls, before its backward pass, which is then that of the policy that learns.
        denoisers: with the weights of the policy that learns; they are left as found.
        newer: whether the calls are others than those that were made: by another policy, or of other latents.
        weights: name -> of what is asked about besides.
        noised: the latents of the trajectory's kept calls, where they are not those of the sampling.
    """
    outputs, steps = [kept.o for kept in trajectory.outputs], [kept.step for kept in trajectory.outputs]
    sampled = {kept.step: kept.o.detach() for kept in trajectory.outputs}
    others = {}
    for name, one in weights.items():
        with weights_in_place(denoisers, one):
            made, _ = outputs_again(outputs, trajectory.calls, denoisers)
        others[name] = dict(zip(steps, made, strict=True))
    if not newer:
        return OtherOutputs(sampled, sampled, others, noised)
    made, calls = outputs_again(outputs, trajectory.calls, denoisers)
    for call, y in zip(trajectory.calls, calls, strict=True):
        renew(call, y)
    return OtherOutputs(sampled, dict(zip(steps, made, strict=True)), others, noised)


@contextmanager
def weights_in_place(denoisers: Mapping[str, torch.nn.Module], weights: Weights | None) -> Iterator[None]:
    """Within the block the denoisers have these weights; with None, their own."""
    if weights is None:
        yield
        return
    own = {name: value.clone() for name, value in trained_values(denoisers).items()}
    set_parameters(denoisers, weights)
    try:
        yield
    finally:
        set_parameters(denoisers, own)

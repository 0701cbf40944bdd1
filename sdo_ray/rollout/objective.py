"""From a trajectory and what the rewards say of it to cotangents, and from those to the gradient.

Notation
    x      samples;  o_k  the scheduler's input at kept step k;  theta  what is trained
    R      mixed reward, summed over the batch;  v = dR/dx
    u_k    a cotangent at o_k: which way o_k should move

    gradient = (dx/dtheta)^T v + sum_k (do_k/dtheta)^T u_k

in which the first term is, through the linear path from o_k to the samples, that of another cotangent
s_k w_k (dx/dz_N)^T v at o_k. Whatever teaches is a way to make cotangents, they add, and one backward pass takes all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from rewards.mix import combine_gradients, combine_scores, cosines_of, pulling_gradients, pulls_of, usable
from rewards.pulls import Memory, Pull
from rewards.terms import Mixing, RewardTerm, no_gradient
from sdo_ray.backprop import GradientRecord, backward_kept
from sdo_ray.backprop.scaling import scales_of
from sdo_ray.backprop.tensors import floating
from sdo_ray.rollout.sampling import KeptOutput, Trajectory

Scores = dict[str, torch.Tensor]
"""Reward key -> scores [B], float32."""
ImageGradients = Mapping[str, torch.Tensor | None]
"""Reward key -> d score_b / d image_b [B,3,H,W], or None for a reward that has no gradient."""
RewardFunction = Callable[[torch.Tensor, Sequence[str], Sequence[int]], tuple[Scores, ImageGradients]]
"""Images [B,3,H,W] float32 in [0,1] on the CPU, prompts, and a seed of each image for what a reward draws
-> scores and gradients of every reward."""

NOTHING_KNOWN = Memory()
"""Before the first update."""


@dataclass(frozen=True, eq=False)
class Cotangents:
    """Where the backward pass of a trajectory starts, and with what; of any device and type."""

    samples: torch.Tensor | None
    """v, of the samples' shape; None: only the outputs' teach."""
    outputs: Sequence[tuple[KeptOutput, torch.Tensor]] = ()
    """(o_k, u_k), u_k of the shape of o_k; the plan's scale is not in u_k, and is not multiplied to it."""


@dataclass(frozen=True, eq=False)
class Objective:
    """What a trajectory learns from."""

    score: torch.Tensor
    """Mixed reward, float32 [B]; NaN where not valid."""
    valid: torch.Tensor
    """bool [B]: samples that count. The others' cotangents are zero."""
    cotangents: Cotangents
    """Of the SUM of the mixed reward over the valid samples."""
    pulls: dict[str, Pull] = field(default_factory=dict)
    """Reward key -> how it pulls on these samples."""
    cosines: dict[str, float] = field(default_factory=dict)
    """"KEY/KEY" of two rewards -> how far they pull the same way."""


def reward_objective(
    scores: Scores,
    gradients: ImageGradients,
    terms: Sequence[RewardTerm],
    mixing: Mixing,
    memory: Memory = NOTHING_KNOWN,
) -> Objective:
    """The mixed reward's gradient at the samples.

    Args:
        scores: what the rewards gave.
        gradients: likewise.
        terms: weights, caps and targets.
        mixing: see `rewards.mix`.
        memory: of the updates before.

    Raises:
        ValueError: no term has a weight, or one that has is missing or has no gradient.
    """
    for term in terms:
        if term.weight and term.key in scores and gradients.get(term.key) is None:
            raise ValueError(no_gradient(term))
    valid = usable(scores, gradients, terms)
    score = torch.where(valid, combine_scores(scores, terms), math.nan)
    pulled = image_gradient(scores, gradients, terms, valid, mixing, memory)
    return Objective(score, valid, Cotangents(pulled.v), pulled.pulls, pulled.cosines)


@dataclass(frozen=True, eq=False)
class ImageGradient:
    """What the rewards that have a gradient make of a batch together."""

    v: torch.Tensor
    """Of the SUM of the mixed reward over the valid samples, at the samples."""
    pulls: dict[str, Pull]
    """See `Objective`."""
    cosines: dict[str, float]
    """See `Objective`."""


def image_gradient(
    scores: Scores,
    gradients: ImageGradients,
    terms: Sequence[RewardTerm],
    valid: torch.Tensor,
    mixing: Mixing,
    memory: Memory,
) -> ImageGradient:
    """Combine the gradients as `rewards.mix` says; arguments as of `reward_objective`, and the valid samples."""
    pulling = pulling_gradients(scores, gradients, terms, valid)
    pulls = pulls_of(pulling, scores, valid)
    return ImageGradient(combine_gradients(pulling, terms, mixing, memory, pulls), pulls, cosines_of(pulling, terms))


@dataclass(frozen=True, eq=False)
class Gradients:
    """What the backward pass of a trajectory gives."""

    parameters: dict[str, torch.Tensor]
    """By name, zeros where nothing arrives; float32, or float64 where the parameter is."""
    calls: list[list[torch.Tensor]]
    """s dR/do of each output of each of the trajectory's kept calls; of the outputs' type, but float32 for float16."""
    norms: dict[int, float]
    """Kept step -> norm of the gradient that it learns from, over the batch; see `GradientRecord.norms`."""


def backpropagate(
    trajectory: Trajectory,
    cotangents: Cotangents,
    parameters: Mapping[str, torch.Tensor],
    denoisers: Mapping[str, torch.nn.Module] | None = None,
) -> Gradients:
    """Take all cotangents back in one pass. Through float16 they go multiplied by a power of two, less of it if that
    is too much.

    Args:
        trajectory: its graph is freed.
        cotangents: what to start with.
        parameters: what is learned, by any names; their `.grad` is used and left None.
        denoisers: by component name, for a trajectory with kept calls without a graph: they are made again, an image
            at a time, with the weights that sampled. None leaves that to the trainers: the pass ends at the calls'
            outputs.

    Raises:
        RuntimeError: nothing requires a gradient.
    """
    record = GradientRecord()
    for kept in trajectory.outputs:
        record.watch(kept.step, kept.scale, kept.o)
    roots = [] if cotangents.samples is None else [(trajectory.samples, cotangents.samples)]
    # Behind o_k comes the plan's scale.
    roots += [(kept.o, u / kept.scale) for kept, u in cotangents.outputs]
    ends = [*parameters.values(), *(o for call in trajectory.calls for o in floating(call.output))]
    scales = scales_of((u for _, u in roots), [*(kept.o for kept in trajectory.outputs), *ends])
    for scale in scales:
        for end in ends:
            end.grad = None
        record.norms.clear()
        torch.autograd.backward(
            [root for root, _ in roots],
            [_times(u, scale).to(root.device, root.dtype) for root, u in roots],
            retain_graph=len(scales) > 1,
        )
        if denoisers is not None:
            for call in trajectory.calls:
                backward_kept(denoisers[call.denoiser], call, pieces=len(trajectory.samples))
        if len(scales) > 1 and _is_finite([end.grad for end in ends if end.grad is not None]):
            break
    return Gradients(
        {name: _unscaled(_taken(p), scale) for name, p in parameters.items()},
        [[_unscaled(g, scale) for g in call.gradients()] for call in trajectory.calls],
        {step: norm / scale for step, norm in record.norms.items()},
    )


def _is_finite(gradients: Sequence[torch.Tensor]) -> bool:
    """Asked of a GPU once, not once a gradient."""
    return not gradients or bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all())


def _times(u: torch.Tensor, scale: float) -> torch.Tensor:
    return u if scale == 1 else u.float() * scale


def _taken(parameter: torch.Tensor) -> torch.Tensor:
    gradient, parameter.grad = parameter.grad, None
    return torch.zeros_like(parameter) if gradient is None else gradient.detach()


def _unscaled(gradient: torch.Tensor, scale: float) -> torch.Tensor:
    if gradient.dtype == torch.float16 or scale != 1:
        gradient = gradient.float() / scale
    return gradient

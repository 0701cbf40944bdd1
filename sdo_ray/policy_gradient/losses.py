"""Losses of a stochastic step, by how far the policy has drifted from the one that sampled.

Notation
    o, o_old    the step's output now, and when it was sampled, at the same latents
    delta       c (o - o_old) = mu - mu_old
    logp        mean over D of [-(z' - mu)^2 / (2 q^2)] + constant: the MEAN, as in all published code, which is why
                clip ranges are 1e-5 .. 1e-3
    ratio       exp(logp - logp_old), logp - logp_old = mean [eps delta / q - delta^2 / (2 q^2)]
    b           mean delta^2 / (2 q^2): the divergence of the two Gaussians, per element

All are to be minimised. Where the policy is the one that sampled, delta = 0, ratio is 1, nothing is clipped, and the
gradient of `grpo` at o is -c a eps / (q D).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sdo_ray.backprop.transitions import Transition


@dataclass(frozen=True, eq=False)
class Drift:
    """How far a step's policy has moved, differentiable in o.

    Attributes:
        log_ratio: logp - logp_old, [B].
        divergence: b >= 0, [B].
        aligned: mean of eps delta, [B].
        std: q.
        length: -d > 0, by how much the noise level falls.
    """

    log_ratio: torch.Tensor
    divergence: torch.Tensor
    aligned: torch.Tensor
    std: float
    length: float

    @classmethod
    def of(cls, transition: Transition, noise: torch.Tensor, o: torch.Tensor, old: torch.Tensor) -> "Drift":
        """From the outputs now and then, and the noise eps, all [B, ...]; in float32 or more."""
        precise = torch.promote_types(o.dtype, torch.float32)
        delta, q = transition.weight * (o.to(precise) - old.to(precise)), transition.std
        aligned = (noise.to(precise) * delta).flatten(1).mean(1)
        divergence = delta.square().flatten(1).mean(1) / (2 * q * q)
        return cls(aligned / q - divergence, divergence, aligned, q, transition.length)


def _clipped(ratio: torch.Tensor, a: torch.Tensor, clip: float | None) -> torch.Tensor:
    if clip is None:
        return -a * ratio
    return torch.maximum(-a * ratio, -a * ratio.clamp(1 - clip, 1 + clip))


def grpo(drift: Drift, a: torch.Tensor, clip: float | None) -> torch.Tensor:
    """max(-a ratio, -a clip(ratio, 1 - e, 1 + e)), [B]. clip None: no clipping.

    Its gradient is zero where the ratio has moved beyond the clip range in the direction that `a` asks for.
    """
    return _clipped(drift.log_ratio.exp(), a, clip)


def guard(drift: Drift, a: torch.Tensor, clip: float | None) -> torch.Tensor:
    """GRPO-Guard (arXiv 2510.22319): ratio exp((logp - logp_old + b) q), without the ratio's drift below 1, over -d."""
    return _clipped(drift.aligned.exp(), a, clip) / drift.length


def dppo(drift: Drift, a: torch.Tensor, clip: float | None) -> torch.Tensor:
    """DPPO (arXiv 2606.11025): -a ratio, but 0 where b >= clip and the ratio has moved the way that `a` asks for."""
    ratio = drift.log_ratio.exp()
    moved = ((a > 0) & (ratio > 1)) | ((a < 0) & (ratio < 1))
    far = torch.zeros_like(moved) if clip is None else drift.divergence >= clip
    return torch.where(moved & far, torch.zeros_like(ratio), -a * ratio)


LOSSES: dict[str, Callable[[Drift, torch.Tensor, float | None], torch.Tensor]] = {
    "dppo": dppo,
    "grpo": grpo,
    "guard": guard,
}


def gaussian_kl(transition: Transition, o: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """mean_D (mu - mu_ref)^2 / (2 q^2), [B]: KL of the steps' Gaussians, per element.

    Flow-GRPO's code divides by h^2 instead of q^2 = h^2 (-d).
    """
    return Drift.of(transition, torch.zeros_like(o), o, reference).divergence


def output_distance(o: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """mean_D (o - o_ref)^2, [B]: Flow-Factory's KL of velocities, without the step's weight."""
    return (o - reference).square().flatten(1).mean(1)

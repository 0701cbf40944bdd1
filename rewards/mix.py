"""Several rewards into one score and one image gradient.

Notation
    s_r[b]     score of reward r for image b                        scores[r]
    g_r[b]     d s_r[b] / d image b                                 gradients[r]
    w_r, c_r   weight and cap of reward r                           RewardTerm
    n_r        typical size of reward r's image gradients           (only with normalize=True, else 1)

1. cap         s'_r[b] = min(s_r[b], c_r)            g'_r[b] = g_r[b] if s_r[b] <= c_r else 0
2. normalise   n_r = sqrt( mean over b in A_r of |g'_r[b]|^2 ),  A_r = the valid images with g'_r[b] != 0
3. mix         s[b] = sum_r w_r s'_r[b]              g[b] = sum_r (w_r / n_r) g'_r[b]

With step 2 a weight compares rewards by how hard they pull on the image; without it, in units of their scores, and
the reward with the largest gradients wins. n_r is taken over the images given, so it follows a reward as it
saturates. It is one number for all of them, so images keep their relative sizes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards.terms import RewardTerm, no_gradient


@dataclass(frozen=True)
class Mixed:
    """What a batch learns from."""

    score: Tensor
    """s, float32 [B]; NaN where not valid."""

    gradient: Tensor
    """g, float32 [B, 3, H, W]; zero where not valid."""

    valid: Tensor
    """bool [B]: every reward with a weight gave this image a finite score and a finite gradient."""


def mix(
    scores: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None], terms: Sequence[RewardTerm], normalize: bool
) -> Mixed:
    """Mix rewards by the equations at the top of this file. Terms with weight 0 take no part.

    Args:
        scores: per term's key, [B].
        gradients: per term's key, [B, 3, H, W], or None for a black-box one.
        terms: weights and caps.
        normalize: whether to do step 2.

    Raises:
        ValueError: no term has a weight, or one that has is missing or has no gradient.
    """
    learned = [term for term in terms if term.weight != 0]
    if not learned:
        raise ValueError("nothing to mix: no reward has a weight other than 0")
    parts = [(term, scores[term.key].float(), _gradient(term, gradients)) for term in learned if _has(term, scores)]

    valid = torch.stack([torch.isfinite(s) & torch.isfinite(g).flatten(1).all(1) for _, s, g in parts]).all(0)
    score = torch.zeros_like(parts[0][1])
    gradient = torch.zeros_like(parts[0][2])
    for term, s, g in parts:
        keep = valid
        if term.cap is not None:
            keep = keep & (s <= term.cap)
            s = s.clamp(max=term.cap)
        g = torch.where(keep[:, None, None, None], g, 0.0)
        score += term.weight * s
        gradient += (term.weight / (_typical_norm(g) if normalize else 1.0)) * g
    return Mixed(torch.where(valid, score, math.nan), gradient, valid)


def _typical_norm(gradient: Tensor) -> float:
    """n_r: root mean square of the images' gradient norms, over the images that have one; 1 if none has."""
    norms = torch.linalg.vector_norm(gradient.flatten(1).double(), dim=1)
    norms = norms[norms > 0]
    return norms.square().mean().sqrt().item() if len(norms) else 1.0


def _has(term: RewardTerm, scores: Mapping[str, Tensor]) -> bool:
    if term.key not in scores:
        raise ValueError(
            f"no scores of reward {term.key!r}, which has weight {term.weight}; there are {', '.join(scores)}"
        )
    return True


def _gradient(term: RewardTerm, gradients: Mapping[str, Tensor | None]) -> Tensor:
    gradient = gradients.get(term.key)
    if gradient is None:
        raise ValueError(no_gradient(term))
    return gradient.float()

"""Several rewards into one score, and their image gradients into one.

Notation
    s_r[b]     score of reward r for image b                        scores[r]
    g_r[b]     d s_r[b] / d image b                                 gradients[r]
    w_r, c_r   weight and cap of reward r                           RewardTerm
    n_r        typical size of reward r's image gradients           (only with normalize=True, else 1)

1. cap         s'_r[b] = min(s_r[b], c_r)            g'_r[b] = g_r[b] if s_r[b] <= c_r else 0        for w_r > 0
               s'_r[b] = max(s_r[b], c_r)            g'_r[b] = g_r[b] if s_r[b] >= c_r else 0        for w_r < 0
2. normalise   n_r = sqrt( mean over b in A_r of |g'_r[b]|^2 ),  A_r = the valid images with g'_r[b] != 0
3. mix         s[b] = sum_r w_r s'_r[b]              g[b] = sum_r (w_r / n_r) g'_r[b]

With step 2 a weight compares rewards by how hard they pull on the image; without it, in units of their scores, and
the reward with the largest gradients wins. n_r is taken over the images given, so it follows a reward as it
saturates. It is one number for all of them, so images keep their relative sizes.

A reward without a gradient, a black box, has its part in s and none in g. Rewards with weight 0 take no part.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rewards.terms import RewardTerm


def usable(scores: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None], terms: Sequence[RewardTerm]) -> Tensor:
    """The valid images, bool [B]: every reward with a weight gave a finite score and, where it has any, gradient.

    Args:
        scores: per term's key, [B].
        gradients: per term's key, [B, 3, H, W], or None for a black-box one.
        terms: weights and caps.

    Raises:
        ValueError: no term has a weight, or one that has is missing.
    """
    finite = [torch.isfinite(s) for _, s in _learned(scores, terms)]
    finite += [torch.isfinite(g).flatten(1).all(1) for _, _, g in _pulling(scores, gradients, terms)]
    return torch.stack(finite).all(0)


def combine_scores(scores: Mapping[str, Tensor], terms: Sequence[RewardTerm]) -> Tensor:
    """s, float32 [B]; NaN where the score of a reward with a weight is not finite.

    Args:
        scores: per term's key, [B].
        terms: weights and caps.

    Raises:
        ValueError: no term has a weight, or one that has is missing.
    """
    parts = _learned(scores, terms)
    total = torch.zeros_like(parts[0][1])
    for term, s in parts:
        total += term.weight * _capped(term, s)
    return torch.where(torch.stack([torch.isfinite(s) for _, s in parts]).all(0), total, math.nan)


def combine_gradients(
    scores: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor | None],
    terms: Sequence[RewardTerm],
    valid: Tensor,
    normalize: bool,
) -> Tensor:
    """g, float32 [B, 3, H, W], of the rewards that have a gradient; zero where not valid.

    Args:
        scores: per term's key, [B].
        gradients: per term's key, [B, 3, H, W], or None for a black-box one.
        terms: weights and caps.
        valid: from `usable`.
        normalize: whether to do step 2.

    Raises:
        ValueError: no term has a weight, one that has is missing, or none that has has a gradient.
    """
    parts = _pulling(scores, gradients, terms)
    if not parts:
        raise ValueError(
            f"no gradient to combine: none of {', '.join(term.key for term in terms if term.weight)} has one"
        )
    total = torch.zeros_like(parts[0][2])
    for term, s, g in parts:
        keep = valid & (_capped(term, s) == s)
        g = torch.where(keep[:, None, None, None], g, 0.0)
        total += (term.weight / (_typical_norm(g) if normalize else 1.0)) * g
    return total


def _capped(term: RewardTerm, s: Tensor) -> Tensor:
    """s': enough is enough on the side that the weight pulls to."""
    if term.cap is None:
        return s
    return s.clamp(max=term.cap) if term.weight > 0 else s.clamp(min=term.cap)


def _learned(scores: Mapping[str, Tensor], terms: Sequence[RewardTerm]) -> list[tuple[RewardTerm, Tensor]]:
    """The terms with a weight, and their scores."""
    learned = [term for term in terms if term.weight]
    if not learned:
        raise ValueError("nothing to mix: no reward has a weight other than 0")
    for term in learned:
        if term.key not in scores:
            raise ValueError(
                f"no scores of reward {term.key!r}, which has weight {term.weight}; there are {', '.join(scores)}"
            )
    return [(term, scores[term.key].float()) for term in learned]


def _pulling(
    scores: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None], terms: Sequence[RewardTerm]
) -> list[tuple[RewardTerm, Tensor, Tensor]]:
    """Those of them that have a gradient, with it."""
    found = [(term, s, gradients.get(term.key)) for term, s in _learned(scores, terms)]
    return [(term, s, g.float()) for term, s, g in found if g is not None]


def _typical_norm(gradient: Tensor) -> float:
    """n_r: root mean square of the images' gradient norms, over the images that have one; 1 if none has."""
    norms = torch.linalg.vector_norm(gradient.flatten(1).double(), dim=1)
    norms = norms[norms > 0]
    return norms.square().mean().sqrt().item() if len(norms) else 1.0

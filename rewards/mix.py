"""Several rewards into one score, and their image gradients into one.

Notation
    s_r[b]        score of reward r for image b                     scores[r]
    g_r[b]        d s_r[b] / d image b                              gradients[r]
    w_r, c_r, t_r weight, cap and target of reward r                RewardTerm
    f_r[b]        by how much its weight counts for image b         RewardTerm.shares, 1 without; left out below
    n_r           what its weight is in units of                    1, or by `Mixing.normalize`

1. cap         s'_r[b] = min(s_r[b], c_r)            g'_r[b] = g_r[b] if s_r[b] <= c_r else 0        for w_r > 0
               s'_r[b] = max(s_r[b], c_r)            g'_r[b] = g_r[b] if s_r[b] >= c_r else 0        for w_r < 0
   target      s'_r[b] = -|s_r[b] - t_r|             g'_r[b] = sign(t_r - s_r[b]) g_r[b]
2. normalise   n_r = sqrt( mean of |g'_r|^2 over the run's images that have one ), or the run's deviation of s_r
3. mix         s[b] = sum_r w_r s'_r[b]              g[b] = combination over r of (w_r / n_r) g'_r[b]

With step 2 a weight compares rewards by how hard they pull on the image, or in deviations of their scores; without it,
in units of their scores, and the reward with the largest gradients wins. n_r is of all images of the run before (see
`rewards.pulls`; of the first update, of the batch itself), so the objective does not depend on how batches are cut, and
images keep their relative sizes. The combination is a sum, or one of `rewards.conflicts`.

A reward without a gradient, a black box, has its part in s and none in g. Rewards with weight 0 take no part.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from rewards.conflicts import COMBINATIONS, dot
from rewards.pulls import Memory, Pull
from rewards.terms import Mixing, RewardTerm


def usable(scores: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None], terms: Sequence[RewardTerm]) -> Tensor:
    """The valid images, bool [B]: every reward with a weight gave a finite score and, where it has any, gradient.

    Args:
        scores: per term's key, [B].
        gradients: per term's key, [B, 3, H, W], or None for a black-box one.
        terms: weights and caps.

    Raises:
        ValueError: no term has a weight, or one that has is missing.
    """
    finite = [torch.isfinite(s) | _is_out(term, s) for term, s in _learned(scores, terms)]
    pulling = _pulling(scores, gradients, terms)
    finite += [torch.isfinite(g).flatten(1).all(1) | _is_out(term, s) for term, s, g in pulling]
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
        total += term.weight * torch.where(_is_out(term, s), 0.0, _shares(term, s) * shaped(term, s))
    there = torch.stack([torch.isfinite(s) | _is_out(term, s) for term, s in parts]).all(0)
    return torch.where(there, total, math.nan)


def pulling_gradients(
    scores: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None], terms: Sequence[RewardTerm], valid: Tensor
) -> dict[str, Tensor]:
    """g' of every reward that has a weight and a gradient, float32 [B, 3, H, W]; zero where not valid.

    Args:
        scores: per term's key, [B].
        gradients: per term's key, [B, 3, H, W], or None for a black-box one.
        terms: weights, caps and targets.
        valid: from `usable`.

    Raises:
        ValueError: no term has a weight, one that has is missing, or none that has has a gradient.
    """
    parts = _pulling(scores, gradients, terms)
    if not parts:
        raise ValueError(
            f"no gradient to combine: none of {', '.join(term.key for term in terms if term.weight)} has one"
        )
    return {
        term.key: _sloped(g, torch.where(valid & ~_is_out(term, s), _shares(term, s) * _slope(term, s), 0.0))
        for term, s, g in parts
    }


def combine_gradients(
    pulling: Mapping[str, Tensor],
    terms: Sequence[RewardTerm],
    mixing: Mixing,
    memory: Memory,
    pulls: Mapping[str, Pull],
) -> Tensor:
    """g, float32 [B, 3, H, W].

    Args:
        pulling: g', from `pulling_gradients`.
        terms: weights.
        mixing: steps 2 and 3.
        memory: of the updates before.
        pulls: of these images, from `pulls_of`.
    """

    def size(key: str) -> float:
        if mixing.normalize is None:
            return 1.0
        return memory.size(key, mixing.normalize, mixing.floor) or pulls[key].size(mixing.normalize) or 1.0

    weights = {term.key: term.weight for term in terms}
    return COMBINATIONS[mixing.combine]([weights[key] / size(key) * g for key, g in pulling.items()])


def pulls_of(pulling: Mapping[str, Tensor], scores: Mapping[str, Tensor], valid: Tensor) -> dict[str, Pull]:
    """What a batch adds to what a run knows of its rewards, by reward key.

    Args:
        pulling: g', from `pulling_gradients`.
        scores: per key, [B].
        valid: from `usable`.
    """
    found = {}
    for key, g in pulling.items():
        squares, s = dot(g, g), scores[key][valid & scores[key].isfinite()].double()
        found[key] = Pull(
            float(len(s)),
            s.sum().item(),
            s.square().sum().item(),
            float((squares > 0).sum()),
            squares.sum().item(),
        )
    return found


def cosines_of(pulling: Mapping[str, Tensor], terms: Sequence[RewardTerm]) -> dict[str, float]:
    """ "KEY/KEY" of each pair of rewards -> mean cosine of w_r g'_r over the images where both have a gradient.

    Args:
        pulling: g', from `pulling_gradients`.
        terms: weights, whose signs count.
    """
    signs, found = {term.key: math.copysign(1.0, term.weight) for term in terms}, {}
    for (a, g), (b, other) in combinations(pulling.items(), 2):
        lengths = (dot(g, g) * dot(other, other)).sqrt()
        cosine = (dot(g, other)[lengths > 0] / lengths[lengths > 0]).mean().item()
        if not math.isnan(cosine):
            found[f"{a}/{b}"] = signs[a] * signs[b] * cosine
    return found


def _shares(term: RewardTerm, s: Tensor) -> Tensor:
    """f, [B]."""
    return torch.ones_like(s) if term.shares is None else s.new_tensor(term.shares)


def _is_out(term: RewardTerm, s: Tensor) -> Tensor:
    """Images for which the reward does not count, and need have no score, bool [B]."""
    return _shares(term, s) == 0


def shaped(term: RewardTerm, s: Tensor) -> Tensor:
    """s', of step 1: enough is enough on the side that the weight pulls to."""
    if term.target is not None:
        return -(s - term.target).abs()
    if term.cap is None:
        return s
    return s.clamp(max=term.cap) if term.weight > 0 else s.clamp(min=term.cap)


def _slope(term: RewardTerm, s: Tensor) -> Tensor:
    """ds'/ds; at a cap that of the side where it learns."""
    return (term.target - s).sign() if term.target is not None else (shaped(term, s) == s).to(s.dtype)


def _sloped(g: Tensor, slope: Tensor) -> Tensor:
    """Images' gradients times their slopes, [B]; a slope of 0 makes zeros of whatever it is."""
    wide = slope.reshape(-1, *(1 for _ in g.shape[1:]))
    return torch.where(wide == 0, 0.0, wide * g)


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

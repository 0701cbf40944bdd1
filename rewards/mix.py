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

from rewards.registry import is_heldout, reward_class


@dataclass(frozen=True)
class RewardTerm:
    """One reward of the mix."""

    name: str
    """Name or import path of the reward."""

    weight: float
    """w_r. 0: only watched. Negative: less is better."""

    cap: float | None = None
    """c_r, in units of the score: enough is enough, nothing is learned from images above it. None: no cap."""

    text: str | None = None
    """Which of a row's texts it is given, where rows have several; None: the prompt."""

    @property
    def key(self) -> str:
        """What its scores are called: `name`, or `name@text`, so that one reward can evaluator by several texts."""
        return self.name if self.text is None else f"{self.name}@{self.text}"

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(
                f"weight of reward {self.name!r} must be a finite number (0: only watch it), got {self.weight}"
            )
        if self.cap is not None and not math.isfinite(self.cap):
            raise ValueError(
                f"cap of reward {self.name!r} must be a finite number, or left out for none, got {self.cap}"
            )


@dataclass(frozen=True)
class Mixed:
    """What a batch learns from."""

    score: Tensor
    """s, float32 [B]; NaN where not valid."""

    gradient: Tensor
    """g, float32 [B, 3, H, W]; zero where not valid."""

    valid: Tensor
    """bool [B]: every reward with a weight gave this image a finite score and a finite gradient."""


def check_terms(terms: Sequence[RewardTerm]) -> None:
    """Check that these rewards can be trained on, before anything starts. Loads no weights.

    Raises:
        ValueError: a reward named twice for one text, none with a weight, a held-out evaluator or a black-box reward
            with one.
        RewardError: a reward that does not exist.
    """
    names = [term.key for term in terms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each reward can be named once; named more often: {', '.join(twice)}")
    learned = [term for term in terms if term.weight != 0]
    if not learned:
        raise ValueError(
            f"nothing to learn from: no reward has a weight other than 0; given: {', '.join(names) or 'none'}"
        )
    for term in learned:
        if is_heldout(term.name):
            raise ValueError(
                f"reward {term.name!r} is held out for evaluation and has weight {term.weight}: trained on, it would "
                "evaluator nothing. Give it weight 0 to watch it"
            )
        if not reward_class(term.name).differentiable:  # type: ignore[attr-defined]
            raise ValueError(_no_gradient(term))


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
        raise ValueError(_no_gradient(term))
    return gradient.float()


def _no_gradient(term: RewardTerm) -> str:
    return (
        f"reward {term.name!r} has weight {term.weight} but no gradient: it is a black box. Give it weight 0 to watch "
        "it, and train on a differentiable one"
    )

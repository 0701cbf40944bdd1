"""Advantages: how much better than its group a sample is.

Notation
    r_j[b], w_j   score and weight of reward j for sample b; a weight may be another for each group
    r             sum_j w_j r_j
    mean, std     over the samples of b's group that have a score; std is biased (divides by their number)

A sample for which a reward with a weight has no score is missing: it leaves its group and has advantage 0. It is never
counted as a reward of 0.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

Weight = float | torch.Tensor
"""Of a reward: a number, or [B]."""

CLAMP = 5.0
"""Advantages are in -5 .. 5, as in all published code."""


def advantages(
    kind: str,
    scores: Sequence[torch.Tensor],
    weights: Sequence[Weight],
    groups: torch.Tensor,
    best_and_worst: int | None = None,
    trimmed: float = 0.0,
) -> torch.Tensor:
    """a, float64 [B].

    Args:
        kind: a name in `ADVANTAGES`.
        scores: r_j of each reward, [B]; what is not finite is missing.
        weights: w_j, a number that is not 0, or [B], alike for the samples of a group.
        groups: [B], integers: which group a sample is of.
        best_and_worst: if given, an even number n: only the best n/2 and the worst n/2 of a group keep their advantage
            (DanceGRPO).
        trimmed: of "mix", the share of a group's lowest scores that its mean and deviation are taken without.
    """
    r_j = torch.stack([s.double() for s in scores])
    present = r_j.isfinite().all(0)
    a = torch.zeros(len(groups), dtype=torch.float64)
    w = torch.stack([torch.as_tensor(weight, dtype=torch.float64).expand(len(groups)) for weight in weights])
    of_kind = partial(_mix, trimmed=trimmed) if trimmed else ADVANTAGES[kind]
    a[present] = of_kind(r_j[:, present], w[:, present], groups[present]).clamp(-CLAMP, CLAMP)
    return a if best_and_worst is None else extremes(a, present, groups, best_and_worst)


def _each(groups: torch.Tensor, of_group: Callable[[torch.Tensor], torch.Tensor], r: torch.Tensor) -> torch.Tensor:
    """`of_group` of the rewards of each group; 0 in one whose rewards are all equal, or that has one sample."""
    a = torch.zeros_like(r)
    for group in groups.unique():
        members = groups == group
        # What equal rewards differ by is rounding, which must not be divided by next to nothing.
        if r[members].max() > r[members].min():
            a[members] = of_group(r[members])
    return a


def _centred(r: torch.Tensor) -> torch.Tensor:
    return r - r.mean()


def _standard(r: torch.Tensor, correction: int = 0, small: float = 1e-4) -> torch.Tensor:
    return _centred(r) / (r.std(correction=correction) + small)


def _sum(r_j: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return (w * r_j).sum(0)


def _plain(r_j: torch.Tensor, w: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """r - mean: unbiased up to (G - 1) / G, in units of the reward."""
    return _each(groups, _centred, _sum(r_j, w))


def _group(r_j: torch.Tensor, w: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """(r - mean) / (std + 1e-4)."""
    return _each(groups, _standard, _sum(r_j, w))


def _global_std(r_j: torch.Tensor, w: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """(r - mean) / (std of all samples given + 1e-4), Flow-GRPO's default (arXiv 2505.05470)."""
    r = _sum(r_j, w)
    a = _each(groups, _centred, r)
    return a / (r.std(correction=0) + 1e-4)


def _dance(r_j: torch.Tensor, w: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """(r - mean) / (unbiased std + 1e-8), DanceGRPO's (arXiv 2505.07818)."""
    return _each(groups, lambda r: _standard(r, correction=1, small=1e-8), _sum(r_j, w))


def _mix(r_j: torch.Tensor, w: torch.Tensor, groups: torch.Tensor, trimmed: float = 0.0) -> torch.Tensor:
    """sum_j w_j (r_j - mean_j) / (std_j + 1e-4), so that no reward wins by its units (MixGRPO, arXiv 2507.21802)."""
    return _sum(torch.stack([_each(groups, partial(_trimmed, share=trimmed), r) for r in r_j]), w)


def _trimmed(r: torch.Tensor, share: float) -> torch.Tensor:
    """`_standard`, by mean and deviation without the lowest `share`; of two that are left at least."""
    rest = r.sort().values[min(int(share * len(r)), len(r) - 2) :]
    return (r - rest.mean()) / (rest.std(correction=0) + 1e-4)


def _gdpo(r_j: torch.Tensor, w: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """`mix`, then standardised over all samples given (GDPO)."""
    a = _mix(r_j, w, groups)
    return _each(torch.zeros(len(a)), _standard, a)


ADVANTAGES: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "group": _group,
    "global-std": _global_std,
    "plain": _plain,
    "dance": _dance,
    "mix": _mix,
    "gdpo": _gdpo,
}
"""Name -> (r_j [J, B], w [J, B], groups [B]) -> a [B], of samples that are all there."""


def by_novelty(a: torch.Tensor, samples: torch.Tensor, present: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """`a` where it is not positive; where it is, times how far the nearest other sample of the group is (GARDO).

    a_b d_b / mean d, d_b the distance of b's to the nearest other sample that is there: of the good, those that are
    like another count less, so that a group does not become one sample. The authors measure it on features of
    images; here it is on what is given.

    Args:
        a: r - mean, [B].
        samples: [B, ...], such as final latents.
        present: bool [B].
        groups: [B].
    """
    scaled, x = a.clone(), samples.detach().double().cpu().flatten(1)
    for group in groups.unique():
        members = (present & (groups == group)).nonzero().flatten()
        if len(members) < 2:
            continue
        d = torch.cdist(x[members], x[members]).fill_diagonal_(math.inf).amin(1)
        if d.mean() > 0:
            scaled[members] = torch.where(a[members] > 0, a[members] * d / d.mean(), a[members])
    return scaled


def extremes(a: torch.Tensor, present: torch.Tensor, groups: torch.Tensor, n: int) -> torch.Tensor:
    """`a` with 0 for all but the best n/2 and the worst n/2 of those who are there in each group."""
    kept = torch.zeros_like(a)
    for group in groups.unique():
        members = (present & (groups == group)).nonzero().flatten()
        order = members[a[members].argsort(stable=True)]
        chosen = order if len(order) <= n else torch.cat([order[: n // 2], order[-math.ceil(n / 2) :]])
        kept[chosen] = a[chosen]
    return kept


def better_half(a: torch.Tensor, present: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """`a` with 0 for all but the better half of those who are there in each group; of an odd number the larger half."""
    kept = torch.zeros_like(a)
    for group in groups.unique():
        members = (present & (groups == group)).nonzero().flatten()
        chosen = members[a[members].argsort(descending=True, stable=True)][: math.ceil(len(members) / 2)]
        kept[chosen] = a[chosen]
    return kept

"""What each branch of a tree of samples is worth; `sdo_ray.backprop.transitions.Branching` says how trees grow."""

from collections.abc import Mapping

import torch

from sdo_ray.backprop.transitions import Branching


def edge_advantages(
    branching: Branching, rewards: torch.Tensor, log_probs: Mapping[int, torch.Tensor] | None = None
) -> dict[int, torch.Tensor]:
    """BranchGRPO's depth-wise advantages (arXiv 2509.06040): split -> what its children are worth, float64 [B].

    A node's reward is the mean over the leaves below it that have one, or, with log-probabilities, their mean weighted
    by how likely each split on the way went so: the product of softmax(log p) over siblings. All nodes of one depth of
    one tree are compared: a = (R - mean) / (std + 1e-8), 0 where there is one alone or std < 1e-6. Rows of one node
    have its value.

    Args:
        branching: with at least one split.
        rewards: [B], B a multiple of its leaves; what is not finite is missing, a node without any has advantage 0.
        log_probs: split -> of each row's step there, [B], the same for rows of one node; up to a constant.
    """
    trees = rewards.double().view(-1, branching.leaves)
    weights, found = trees.isfinite().double(), {}
    for split in sorted(branching.splits, reverse=True):
        run = branching.same_after(split)
        below = weights.view(len(trees), -1, run)
        nodes = (below * trees.nan_to_num(0, 0, 0).view_as(below)).sum(-1) / below.sum(-1)  # NaN without any
        a = torch.stack([_standard(tree) for tree in nodes])
        found[split] = a.repeat_interleave(run, 1).flatten()
        if log_probs is not None:
            siblings = log_probs[split].double().view(len(trees), -1, branching.splits[split], run)
            weights = weights * siblings.softmax(2).view_as(weights)
    return found


def _standard(R: torch.Tensor) -> torch.Tensor:
    a, present = torch.zeros_like(R), R.isfinite()
    if present.sum() > 1 and (std := R[present].std(correction=0)) >= 1e-6:
        a[present] = (R[present] - R[present].mean()) / (std + 1e-8)
    return a

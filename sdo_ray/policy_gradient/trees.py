"""What each branch of a tree of samples is worth; `sdo_ray.backprop.transitions.Branching` says how trees grow."""

import torch

from sdo_ray.backprop.transitions import Branching


def edge_advantages(branching: Branching, rewards: torch.Tensor) -> dict[int, torch.Tensor]:
    """BranchGRPO's depth-wise advantages (arXiv 2509.06040): split -> what its children are worth, float64 [B].

    A node's reward is the mean over the leaves below it that have one; all nodes of one depth of one tree are compared:
    a = (R - mean) / (std + 1e-8), 0 where there is one alone or std < 1e-6. Rows of one node have its value.

    Args:
        branching: with at least one split.
        rewards: [B], B a multiple of its leaves; what is not finite is missing, a node without any has advantage 0.
    """
    trees = rewards.double().view(-1, branching.leaves)
    found = {}
    for split in sorted(branching.splits):
        run = branching.same_after(split)
        nodes = trees.view(len(trees), -1, run).nanmean(-1)
        a = torch.stack([_standard(tree) for tree in nodes])
        found[split] = a.repeat_interleave(run, 1).flatten()
    return found


def _standard(R: torch.Tensor) -> torch.Tensor:
    a, present = torch.zeros_like(R), R.isfinite()
    if present.sum() > 1 and (std := R[present].std(correction=0)) >= 1e-6:
        a[present] = (R[present] - R[present].mean()) / (std + 1e-8)
    return a

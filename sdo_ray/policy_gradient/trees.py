"""Trees of samples: which rows are still the same at which step, and what each branch is worth.

Rows are in groups of G, the leaves of one root. At a split with m children, rows that were the same until then become m
runs of rows that are the same until the next split. One split with G children is a plain group.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Branching:
    """Where the rows of a group part.

    Attributes:
        splits: step -> children of each node there, >= 2. Of rows of which none share anything, empty.
    """

    splits: Mapping[int, int] = field(default_factory=dict)

    @property
    def leaves(self) -> int:
        """G, samples of one root."""
        return math.prod(self.splits.values())

    def same_before(self, step: int) -> int:
        """How many rows in a run are the same when the denoiser is called at `step`."""
        return math.prod(children for split, children in self.splits.items() if split >= step)

    def same_after(self, step: int) -> int:
        """How many rows in a run are the same in the latents after `step`, and so have one noise there."""
        return self.same_before(step + 1)


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

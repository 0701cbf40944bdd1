"""Which rows of a batch are still the same at which step.

Rows are in groups of G, the leaves of one root. At a split with m children, rows that were the same until then become m
runs of rows that are the same until the next split. One split with G children is a plain group.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


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

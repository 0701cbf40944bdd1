"""Whether groups say anything: numbers to look at before a run is believed."""

from dataclasses import dataclass

import torch

LEAST_GROUP = 8
"""Groups below this have advantages that are mostly noise."""


@dataclass(frozen=True)
class GroupStatistics:
    """Of the groups of one batch."""

    groups: int
    """How many."""
    flat: int
    """Those whose rewards are all equal, within 1e-6, or of which fewer than two are there: they teach nothing."""
    missing: int
    """Samples without a score."""
    spread: float
    """Mean standard deviation of the rewards in a group that is not flat; 0 if all are."""

    @property
    def flat_share(self) -> float:
        """flat / groups."""
        return self.flat / self.groups


def group_statistics(rewards: torch.Tensor, groups: torch.Tensor) -> GroupStatistics:
    """Of mixed rewards [B], NaN where missing, and which group each is of, [B]."""
    spreads = []
    for group in groups.unique():
        r = rewards[groups == group].double()
        r = r[r.isfinite()]
        spreads.append(r.std(correction=0).item() if len(r) > 1 else 0.0)
    told = [spread for spread in spreads if spread > 1e-6]
    mean = sum(told) / len(told) if told else 0.0
    return GroupStatistics(len(spreads), len(spreads) - len(told), int((~rewards.isfinite()).sum()), mean)


def sign_agreement(rewards: torch.Tensor, groups: torch.Tensor) -> float:
    """Split-half agreement of advantages' signs, 0 .. 1: the share of samples that are on the same side of the mean of
    their group's even-numbered and of its odd-numbered members, themselves left out.

    Near 1: who is better does not depend on whom one is compared with. Near one half: groups are too small for it. NaN
    without groups of which four samples are there.

    Args:
        rewards: [B], NaN where missing.
        groups: [B].
    """
    agree, count = 0, 0
    for group in groups.unique():
        r = rewards[groups == group].double()
        r = r[r.isfinite()]
        if len(r) < 4:
            continue
        place = torch.arange(len(r))
        for i in place:
            sides = [(r[i] - r[(place % 2 == half) & (place != i)].mean()).sign() for half in (0, 1)]
            agree, count = agree + int(sides[0] == sides[1]), count + 1
    return agree / count if count else float("nan")

"""What a candidate costs, from what few calls of the pipeline took.

Noise of single timings would choose among candidates by luck. So the time of a call is measured with all steps computed
and with the first alone, for each way to hold, and taken to be linear in between: that is what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdo_ray.step_search.candidate import Candidate


@dataclass(frozen=True)
class Costs:
    """Of all ways to hold, as shares of the time of a call with exact steps."""

    computed: Mapping[int, float]
    """Way -> with all steps computed, which a copy of the denoiser makes less than 1."""
    held: Mapping[int, float]
    """Way -> with all steps held but the first."""
    num_steps: int
    """N."""

    def of(self, candidate: Candidate) -> float:
        """Share of the time of exact steps that a candidate takes."""
        share = (len(candidate.steps) - 1) / (self.num_steps - 1)
        low, high = self.held[candidate.hold], self.computed[candidate.hold]
        return low + share * (high - low)

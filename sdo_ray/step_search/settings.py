"""Settings of the search."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.rollout.settings import PlanSettings
from sdo_ray.settings import Settings

Compared = Literal["latents", "rewards", "gradient"]
"""What of a candidate is compared with exact steps."""


class SearchSettings(Settings):
    """What is searched, by what, and how long."""

    holds: list[CacheSettings] = Field(
        default=[CacheSettings(name="taylor")],
        min_length=1,
        description="Ways to hold, of ours, to choose from, by name, or with `modules`. Which steps are computed, and "
        "the order, is what is searched.",
    )
    orders: list[int] = Field(default=[0, 1, 2], min_length=1, description="Orders to choose from, 0 to 3.")
    compare: Compared = Field(
        "latents",
        description="What is to be near to that of exact steps: the final `latents`, by relative distance; the mixed "
        "score by the `rewards`, by the root of the mean square of its difference; or the `gradient` of `plan`, by "
        "1 - cosine. The last two need `rewards`.",
    )
    plan: PlanSettings = Field(
        default=PlanSettings(name="sdo", options={"K": 1}),
        description="The estimator whose gradient is compared, the same draws for all.",
    )
    population: int = Field(16, ge=2, description="Candidates of a generation.")
    generations: int = Field(8, ge=1, description="How many generations are measured.")
    batches: int = Field(2, ge=1, description="Batches of `samplers.batch_size` prompts that candidates are tried on.")
    check_batches: int = Field(
        2,
        ge=1,
        description="Batches of other prompts and noise, on which what is found is measured at the end.",
    )
    check_steps: list[int] = Field(
        default=[], description="Other numbers of sampling steps, at which they are measured too."
    )
    shown: int = Field(8, ge=1, description="How many of the Pareto front are measured at the end, spread over costs.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for hold in self.holds:
            if not hold.is_ours:
                raise ValueError(f"holds has {hold.name!r}, which is diffusers' own and has no schedule; remove it")
            if hold.name == "cg-taylor" or hold.tolerance is not None:
                raise ValueError(f"holds has {hold.name!r} with a gate, which decides while sampling; remove it")
            if hold != CacheSettings(name=hold.name, modules=hold.modules):
                raise ValueError(f"holds has a schedule or an order with {hold.name!r}, which is what is searched")
        if len({hold.model_dump_json() for hold in self.holds}) < len(self.holds):
            raise ValueError("holds has one way twice; remove one")
        if len({*self.orders}) < len(self.orders) or not all(0 <= order <= 3 for order in self.orders):
            raise ValueError(f"orders has {self.orders}; give different ones of 0, 1, 2, 3")
        if any(steps < 2 for steps in self.check_steps):
            raise ValueError(f"check_steps has {min(self.check_steps)}; give 2 or more")
        return self

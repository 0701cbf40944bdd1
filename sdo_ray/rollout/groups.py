"""Groups of samples of one prompt, by which rewards without a gradient teach; see docs/black-box.md.

A batch of prompts becomes one of `plan.samples` images a prompt, rows of a prompt one after the other. The first of a
prompt has the noise that its row has without groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from sdo_ray.backprop import solver_weights
from sdo_ray.backprop.transitions import LinearStep, StochasticSteps, Transition, step_levels, transitions
from sdo_ray.policy_gradient import PolicyPlan, make_policy_plan
from sdo_ray.rollout.sampling import scheduler_of
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.seeds import derive_seed

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Groups:
    """How one batch is sampled in groups, and learned from."""

    plan: PolicyPlan
    transitions: Sequence[Transition]
    """Of steps 0 .. N-2."""
    solver: torch.Tensor
    """w_k = dz_N / do_k without noise, [N] float64."""
    levels: Sequence[LinearStep] = ()
    """Of all steps, for a forward-process method; it has no transitions."""

    def each(self, values: Sequence[T]) -> list[T]:
        """What belongs to a prompt, for each of its samples."""
        return [value for value in values for _ in range(self.plan.samples)]

    def noise(self, seed: int, rows: Sequence[int]) -> list[torch.Generator]:
        """The samples' initial noise: those of one root have the same."""
        leaves = self.plan.branching.leaves
        return self._generators(seed, rows, lambda sample: f"noise {sample // leaves}" if sample >= leaves else "noise")

    def stochastic(self, seed: int, rows: Sequence[int], differentiable: bool) -> StochasticSteps:
        """The steps' noise.

        Args:
            seed: the run's.
            rows: of the batch.
            differentiable: whether a reward that has a gradient is learned from by it.
        """
        steps = {k: self.transitions[k] for k in self.plan.stochastic}
        generators = self._generators(seed, rows, lambda sample: f"step {sample}")
        recorded = self.plan.kept if self.plan.forward else ()
        return StochasticSteps(
            steps, generators, self.plan.branching, self.plan.mirrored, differentiable, recorded=recorded
        )

    def forward_noise(self, seed: int, rows: Sequence[int]) -> list[torch.Generator]:
        """Of samples that are noised again."""
        return self._generators(seed, rows, lambda sample: f"forward {sample}")

    def reward_seeds(self, seed: int, rows: Sequence[int]) -> list[int]:
        """Each sample's seed of what a reward draws for it."""
        return [derive_seed(seed, f"reward of {sample}", row) for row in rows for sample in range(self.plan.samples)]

    def _generators(self, seed: int, rows: Sequence[int], purpose: Callable[[int], str]) -> list[torch.Generator]:
        seeds = [derive_seed(seed, purpose(sample), row) for row in rows for sample in range(self.plan.samples)]
        return [torch.Generator("cpu").manual_seed(one) for one in seeds]


def groups_of(
    pipeline: DiffusionPipeline,
    sampling: SamplingSettings,
    plan: PlanSettings,
    draws: torch.Generator | None = None,
    update: int = 0,
) -> Groups:
    """The groups of one batch, for the steps that the pipeline's scheduler takes.

    Args:
        pipeline: which is called.
        sampling: how.
        plan: a policy-gradient estimator.
        draws: where the steps come from that it draws.
        update: the update's number.

    Raises:
        PlanError: see `make_policy_plan` and `sdo_ray.backprop.transitions.transitions`.
    """
    scheduler = scheduler_of(pipeline, sampling)
    solver = solver_weights(scheduler, None)
    made = make_policy_plan(plan.name, solver.num_steps, generator=draws, update=update, **plan.options)
    if made.forward:
        return Groups(made, (), solver.w, step_levels(scheduler))
    return Groups(made, transitions(scheduler, made.kernel, made.eta), solver.w)

"""One way of holding steps beside exact steps, on one model. No Ray in here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from rewards.mix import combine_scores
from sdo_ray.backprop import StepRunner
from sdo_ray.cheap_steps.choose import holding_runner
from sdo_ray.cheap_steps.fast_copy import FastCopy
from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.fidelity.clock import clock_of
from sdo_ray.fidelity.gradients import Evaluated, plan_gradient
from sdo_ray.prompts.inputs import Prompts
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.sampling import draw, noise, plan_of, reward_seeds
from sdo_ray.rollout.settings import PlanSettings
from sdo_ray.seeds import generator
from sdo_ray.step_search.settings import Compared

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ROUNDS = 3
"""Timings of which a cost is the median."""
LARGEST = 1e3
"""Error of what came to nothing finite."""


@dataclass(frozen=True)
class Trial:
    """What is to be tried."""

    cache: CacheSettings
    """The way."""
    batches: tuple[PromptBatch, ...]
    """On these prompts and their noise."""
    num_steps: int
    """N."""
    compare: Compared


@dataclass(frozen=True)
class Tried:
    """What came of it."""

    trial: Trial
    error: float
    """Mean over the batches."""
    cost: float | None
    """Seconds over those of exact steps made right before, median over the batches, where it was timed; see
    `clock_of`."""


class Trials:
    """One model with what is trained, its copies, and what exact steps gave.

    Args:
        pipeline: as loaded and prepared.
        trained: the trained parameters.
        copies: of its denoisers, if any.
        evaluated: how it samples, and what rewards say; its runner is not looked at.
        plan: the estimator whose gradient is compared.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        trained: Mapping[str, torch.nn.Parameter],
        copies: Mapping[str, FastCopy],
        evaluated: Evaluated,
        plan: PlanSettings,
    ) -> None:
        self._pipeline, self._trained, self._copies = pipeline, trained, copies
        self._evaluated, self._plan = evaluated, plan
        self._made: dict[tuple[object, ...], torch.Tensor] = {}

    def try_out(self, trial: Trial, *, timed: bool = False) -> Tried:
        """Compare a way with exact steps.

        Args:
            trial: what.
            timed: whether exact steps are made anew beside each batch, for the cost.

        Raises:
            SettingsError: the model cannot have the way.
        """
        runner = holding_runner(self._pipeline, trial.cache, self._copies)
        errors, costs = list[float](), list[float]()
        for batch in trial.batches:
            key = (trial.compare, trial.num_steps, batch.rows)
            exact = None
            if timed or key not in self._made:
                self._made[key], exact = self._outcome(trial, batch, None)
            made, seconds = self._outcome(trial, batch, runner)
            errors.append(_error(trial.compare, made, self._made[key]))
            if timed and exact:
                costs.append(seconds / exact)
        return Tried(trial, statistics.fmean(errors), statistics.median(costs) if costs else None)

    def cost(self, trial: Trial) -> float:
        """Its time over that of exact steps, measured in turns on the first batch; the first turn warms up."""
        runner = holding_runner(self._pipeline, trial.cache, self._copies)
        turns = [
            [self._outcome(trial, trial.batches[0], way)[1] for way in (None, runner)] for _turn in range(ROUNDS + 1)
        ]
        return statistics.median(held / exact for exact, held in turns[1:])

    def _outcome(self, trial: Trial, batch: PromptBatch, runner: StepRunner | None) -> tuple[torch.Tensor, float]:
        """What is compared, as one vector or [B, ...], and the seconds of making it."""
        evaluated, pipeline = self._evaluated, self._pipeline
        sampling = evaluated.sampling.model_copy(update={"num_inference_steps": trial.num_steps})
        if trial.compare == "gradient":
            plan = plan_of(pipeline, sampling, self._plan, generator(evaluated.seed, "plan 0", batch.rows[0]))
            how = replace(evaluated, sampling=sampling, runner=runner)
            measured = plan_gradient(pipeline, self._trained, batch, plan, how)
            return measured.gradient, measured.seconds
        call, kind = (
            sampling.pipeline_call(batch.prompts, batch.inputs),
            "latent" if trial.compare == "latents" else "pt",
        )
        samples, seconds = _timed(
            clock_of(pipeline),
            lambda: draw(pipeline, call, noise(evaluated.seed, batch.rows), runner, kind),
        )
        if trial.compare == "latents":
            return samples.float().cpu(), seconds
        seeds = reward_seeds(evaluated.seed, batch.rows)
        scores, _ = evaluated.rewards(samples.float().cpu(), Prompts(batch.prompts, batch.inputs), seeds)
        return combine_scores(scores, evaluated.terms), seconds


def _timed(clock: Callable[[], float], work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
    began = clock()
    made = work()
    return made, clock() - began


def _error(compare: Compared, made: torch.Tensor, exact: torch.Tensor) -> float:
    """See `SearchSettings.compare`; at most `LARGEST`, also of what is not finite."""
    if compare == "gradient":
        error = 1 - float(torch.nn.functional.cosine_similarity(made.flatten(), exact.flatten(), dim=0))
    elif compare == "rewards":
        error = float((made - exact).square().mean().sqrt())
    else:
        error = float((made - exact).norm() / exact.norm())
    return min(error, LARGEST) if math.isfinite(error) else LARGEST

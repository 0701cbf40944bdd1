"""Optimise the rows of one batch, the model frozen. No Ray in here.

Each iteration samples the batch's images from its variables, asks the rewards, and takes the mixed reward's gradient
back to the variables, through the one step of the sampler that the iteration's plan keeps:

    latents          dR/dz_0 ~ (a I + s_k w_k a_{0k} do_k/dz_k)^T g      a_{0k} = dz_k/dz_0 with the outputs held
    prompt_embeds    dR/dc   ~ s_k w_k (do_k/dc)^T g
    guidance_scale   dR/ds   ~ sum_i w_i (o_i with - without prompt)^T g + what z_k adds at the kept step

(docs/method.md has the notation.) A policy-gradient estimator compares samples of one row's embedding instead, see
`compared`; the row's own image is then made besides, to see how it fares. Adam steps along the gradient, each row with
a clipped one and moments of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from rewards.mix import combine_scores
from rewards.modality import Modality
from sdo_ray.backprop import BackpropPlan
from sdo_ray.input_optimization.gradients import TextRewards, compared, followed
from sdo_ray.input_optimization.records import OptimizedRow, OptimizerConfig, RowBatch
from sdo_ray.input_optimization.variables import VARIABLES
from sdo_ray.media.modality import modality_of
from sdo_ray.media.picture import picture, to_png
from sdo_ray.models.precision import own_precision
from sdo_ray.rollout.objective import reward_objective
from sdo_ray.rollout.sampling import noise, plan_of, reward_seeds, sample
from sdo_ray.rollout.settings import PlanSettings
from sdo_ray.seeds import generator

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass
class _Row:
    """How one row fares."""

    initial: torch.Tensor
    image: torch.Tensor
    """The best so far, [3, H, W] or what else the pipeline makes."""
    value: torch.Tensor
    """The variable that it came from."""
    best: float = math.nan
    best_iteration: int = 0
    mixed: list[float] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    kept_steps: list[int] = field(default_factory=list)
    stopped: bool = False

    def see(self, mixed: float, scores: Mapping[str, float], image: torch.Tensor, value: torch.Tensor) -> None:
        """Take note of the image after `len(self.mixed)` steps."""
        if not mixed <= self.best and not math.isnan(mixed):
            self.best, self.best_iteration = mixed, len(self.mixed)
            self.image, self.value = image, value.detach().clone()
        self.mixed.append(mixed)
        for name, score in scores.items():
            self.scores.setdefault(name, []).append(score)


def optimize_batch(
    pipeline: DiffusionPipeline, batch: RowBatch, config: OptimizerConfig, rewards: TextRewards
) -> list[OptimizedRow]:
    """Optimise every row of a batch.

    Row r's noise comes from the seed (run seed, r) and the kept steps from (run seed, the batch's first row), so that a
    batch that is redone is the same batch.

    Args:
        pipeline: frozen, on any device.
        batch: the rows.
        config: what to do.
        rewards: computes the rewards.

    Returns:
        The rows, each with the best image that it had on its way. An iteration whose reward or gradient is not finite
        for a row makes no step for it.
    """
    settings, terms = config.optimization, [term.term for term in config.rewards.terms]
    grouped = config.plan.is_policy_gradient
    call = config.sampling.pipeline_call(batch.texts[config.column], batch.inputs)
    texts = {term.key: batch.texts[term.text or config.column] for term in config.rewards.terms}
    kind = VARIABLES[settings.variable]
    with own_precision(pipeline):
        start = kind.start(pipeline, call | {"generator": noise(config.seed, batch.rows)})
    variable = kind(start, keep_norm=settings.keep_norm, max_change=settings.max_change)
    adam = torch.optim.Adam(variable.values, lr=settings.learning_rate, maximize=True)
    rows: list[_Row] = []
    draws = generator(config.seed, "plan", batch.rows[0])
    look = BackpropPlan("look", plan_of(pipeline, config.sampling, PlanSettings(name="full")).num_steps)
    for iteration in range(settings.iterations + 1):
        last = iteration == settings.iterations
        plan = look if last or grouped else plan_of(pipeline, config.sampling, config.plan, draws)
        with variable.given(pipeline) as given:
            trajectory = sample(pipeline, call | given, noise(config.seed, batch.rows), plan)
        seen = trajectory.seen
        scores, gradients = rewards(seen, texts, reward_seeds(config.seed, batch.rows, iteration))
        objective = None if grouped else reward_objective(scores, gradients, terms, config.rewards.mixing)
        mixed = combine_scores(scores, terms) if objective is None else objective.score
        rows = rows or [_Row(image, image, value) for image, value in zip(seen, variable.initial, strict=True)]
        for b, row in enumerate(rows):
            if not row.stopped:
                values = {name: score[b].item() for name, score in scores.items()}
                row.see(mixed[b].item(), values, seen[b], variable.values[b])
                row.stopped = settings.patience is not None and iteration - row.best_iteration >= settings.patience
        if last or all(row.stopped for row in rows):
            break
        if objective is None:
            [value] = variable.values
            differentiable = any(term.weight and gradients.get(term.key) is not None for term in terms)
            found = compared(pipeline, batch, config, value, rewards, iteration, draws, differentiable=differentiable)
        else:
            found = followed(trajectory, objective, variable.values)
        for row, value, gradient in zip(rows, variable.values, found.gradients, strict=True):
            if not row.stopped:
                row.kept_steps.append(found.first_step)
            value.grad = None
            if not row.stopped and gradient is not None and gradient.isfinite().all():
                value.grad = gradient
                torch.nn.utils.clip_grad_norm_([value], settings.max_grad_norm)
        adam.step()
        variable.project()
    made = modality_of(type(pipeline))
    return [_result(batch, b, row, variable.initial[b], made) for b, row in enumerate(rows)]


def _result(batch: RowBatch, b: int, row: _Row, initial: torch.Tensor, made: Modality) -> OptimizedRow:
    return OptimizedRow(
        row=batch.rows[b],
        texts={name: texts[b] for name, texts in batch.texts.items()},
        initial_image=to_png(picture(row.initial, made)),
        final_image=to_png(picture(row.image, made)),
        best_iteration=row.best_iteration,
        scores=row.scores,
        mixed=row.mixed,
        kept_steps=row.kept_steps,
        variable={"initial": initial.cpu(), "final": row.value.cpu()},
        inputs=batch.inputs[b] if batch.inputs else None,
    )

"""Optimise the rows of one batch, the model frozen. No Ray in here.

Each iteration samples the batch's images from its variables, asks the rewards, and takes the mixed reward's gradient
back to the variables, through the one step of the sampler that the iteration's plan keeps:

    latents          dR/dz_0 ~ (a I + s_k w_k a_{0k} do_k/dz_k)^T g      a_{0k} = dz_k/dz_0 with the outputs held
    prompt_embeds    dR/dc   ~ s_k w_k (do_k/dc)^T g
    guidance_scale   dR/ds   ~ sum_i w_i (o_i with - without prompt)^T g + what z_k adds at the kept step

(docs/method.md has the notation.) Adam steps along it, each row with a clipped gradient and moments of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from rewards.modality import Modality
from sdo_ray.backprop import BackpropPlan
from sdo_ray.input_optimization.records import OptimizedRow, OptimizerConfig, RowBatch
from sdo_ray.input_optimization.variables import VARIABLES
from sdo_ray.media.modality import modality_of
from sdo_ray.media.picture import picture, to_png
from sdo_ray.models.precision import own_precision
from sdo_ray.rollout.objective import ImageGradients, Scores, backpropagate, reward_objective
from sdo_ray.rollout.sampling import noise, plan_of, reward_seeds, sample
from sdo_ray.seeds import generator

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TextRewards = Callable[[torch.Tensor, Mapping[str, Sequence[str]], Sequence[int]], tuple[Scores, ImageGradients]]
"""Images [B,3,H,W] float32 in [0,1] on the CPU, reward key -> the texts it is given, and a seed of each image for what
a reward draws -> scores and gradients."""


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
    call = config.sampling.pipeline_call(batch.texts[config.column])
    texts = {term.key: batch.texts[term.text or config.column] for term in config.rewards.terms}
    kind = VARIABLES[settings.variable]
    with own_precision(pipeline):
        start = kind.start(pipeline, call | {"generator": noise(config.seed, batch.rows)})
    variable = kind(start, keep_norm=settings.keep_norm, max_change=settings.max_change)
    adam = torch.optim.Adam(variable.values, lr=settings.learning_rate, maximize=True)
    rows: list[_Row] = []
    for iteration, plan in enumerate(_plans(pipeline, batch, config)):
        with variable.given(pipeline) as given:
            trajectory = sample(pipeline, call | given, noise(config.seed, batch.rows), plan)
        seen = trajectory.seen
        scores, gradients = rewards(seen, texts, reward_seeds(config.seed, batch.rows, iteration))
        objective = reward_objective(scores, gradients, terms, config.rewards.mixing)
        rows = rows or [_Row(image, image, value) for image, value in zip(seen, variable.initial, strict=True)]
        for b, row in enumerate(rows):
            if not row.stopped:
                values = {name: score[b].item() for name, score in scores.items()}
                row.see(objective.score[b].item(), values, seen[b], variable.values[b])
                row.stopped = settings.patience is not None and iteration - row.best_iteration >= settings.patience
        if not plan.steps or all(row.stopped for row in rows):
            break
        learned = {str(b): value for b, value in enumerate(variable.values)}
        found = backpropagate(trajectory, objective.cotangents, learned)
        for name, value in learned.items():
            value.grad = found.parameters[name].to(value.dtype)
        v = objective.cotangents.samples
        assert v is not None
        for b, (row, value) in enumerate(zip(rows, variable.values, strict=True)):
            if not row.stopped:
                row.kept_steps.append(min(plan.steps))
            if row.stopped or not v[b].any() or not _finite(value.grad):
                value.grad = None
            else:
                torch.nn.utils.clip_grad_norm_([value], settings.max_grad_norm)
        adam.step()
        variable.project()
    made = modality_of(type(pipeline))
    return [_result(batch, b, row, variable.initial[b], made) for b, row in enumerate(rows)]


def _plans(pipeline: DiffusionPipeline, batch: RowBatch, config: OptimizerConfig) -> Iterator[BackpropPlan]:
    """A plan for each step of the optimizer, and one that keeps nothing to see what the last step did."""
    draws = generator(config.seed, "plan", batch.rows[0])
    for _ in range(config.optimization.iterations):
        plan = plan_of(pipeline, config.sampling, config.plan, draws)
        yield plan
    yield BackpropPlan("none", plan.num_steps)


def _finite(gradient: torch.Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all())


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
    )

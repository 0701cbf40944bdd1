"""The evaluation that closes an alignment run: its policy, as the candidate, against the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdo_ray.evaluation.images import ImageConfig, image_blocks, make_images, side_by_side
from sdo_ray.evaluation.models import ModelSource, PolicyModel, WholeModel
from sdo_ray.evaluation.result import BASE, CANDIDATE, Evaluation
from sdo_ray.evaluation.settings import EvaluationSettings
from sdo_ray.prompts.heldout import draw_questions, read_heldout
from sdo_ray.storage import RunDirectory


def closing_evaluation(
    settings: EvaluationSettings,
    run: RunDirectory,
    policy: PolicyModel,
    config: ImageConfig,
    evaluators: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> Evaluation:
    """Images of both models for the same held-out prompts and noise, with every score.

    Args:
        settings: which prompts.
        run: the run, which the evaluation is called by.
        policy: what the run hands out.
        config: how images are made.
        evaluators: reward actors by key, those that were learned from too.
        inputs: argument of the pipeline's call -> column; may be empty.
    """
    heldout = read_heldout(settings.prompts, settings.column, inputs=inputs)
    questions = draw_questions(heldout, settings.num_prompts, config.seed)
    model = policy.model
    base = WholeModel(model.reference, model.dtype, model.dtypes, model.quantize)
    models: dict[str, ModelSource] = {BASE: base, CANDIDATE: policy}
    blocks = image_blocks(models, questions, config.samplers.batch_size)
    images = side_by_side(list(make_images(blocks, config, models, evaluators)), models, questions)
    return Evaluation(run.name, {BASE: model.reference, CANDIDATE: run.uri}, images)

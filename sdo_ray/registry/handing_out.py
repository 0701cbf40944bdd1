"""What an alignment run leaves behind: files in its directory, numbers in MLflow, a version in the registry."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from sdo_ray.evaluation.images import ImageConfig
from sdo_ray.evaluation.outcome import IMAGES, SHEET, Outcome, as_metrics, write_images
from sdo_ray.evaluation.result import Evaluation
from sdo_ray.evaluation.summary import summarize
from sdo_ray.models.export import export_model, product
from sdo_ray.models.settings import ModelSettings
from sdo_ray.registry.base_model import base_model_sha256
from sdo_ray.registry.recipe import Recipe
from sdo_ray.registry.registration import examples_of, register_model
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.provenance import environment
from sdo_ray.tracking.run import TrackedRun
from sdo_ray.tracking.server import how_to_look
from sdo_ray.tracking.settings import TrackingSettings


def hand_out(
    run: RunDirectory,
    tracked: TrackedRun,
    model: ModelSettings,
    weights: Mapping[str, torch.Tensor],
    comparison: Evaluation,
    config: ImageConfig,
    tracking: TrackingSettings,
    rewards: Mapping[str, str],
) -> Outcome:
    """Export the model, keep the comparison with it, and register both, if `tracking.register_as` names a model.

    Args:
        run: where files go.
        tracked: its MLflow run.
        model: the base, and what was trained.
        weights: of what was trained.
        comparison: of the base and the trained model.
        config: how its images were made.
        tracking: the registered model's name, and whether a hub model is copied.
        rewards: provenance of what was learned from.
    """
    lines = summarize(comparison)
    origin = environment() | dict(rewards)
    origin |= {"base_model": model.reference, "base_model_sha256": base_model_sha256(model.reference)}
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary)
        tracked.log_results(as_metrics(lines), write_images(local, comparison))
        base, trained = export_model(local, model, weights), product(model)
        places = {
            "before/after sheet": run.place(SHEET),
            "all images and scores": run.place(IMAGES),
            trained: run.place(trained),
            "base model": run.place(base) if base else model.reference,
            "MLflow": how_to_look(tracked.uri),
        }
        run.copy_in(local)
        tracked.set_tags(origin)
        if tracking.register_as is not None:
            places["registered model"] = register_model(
                tracked.client,
                tracked.run_id,
                tracking.register_as,
                local,
                model.reference,
                Recipe.of(config.sampling, model.dtype, config.samplers.batch_size, model.dtypes),
                examples=examples_of(comparison.images["prompt"].to_pylist(), config.seed),
                provenance=origin,
                copy_base=tracking.copy_hub_base,
            )
    return Outcome(tuple(lines), places)

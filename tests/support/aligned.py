"""A registered model with files: a tiny pipeline with a trained LoRA, and the images it was evaluated by."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from sdo_ray.media.picture import open_image, picture, to_png
from sdo_ray.models.export import export_model
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach_working_copy, load_model
from sdo_ray.models.settings import ModelSettings
from sdo_ray.registry.recipe import Recipe
from sdo_ray.registry.registration import examples_of, register_model
from sdo_ray.rollout.sampling import draw_images
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.seeds import derive_seed
from tests.models.adapters import LORA, trained_weights

SEED, PROMPTS = 5, ("a", "b c", "d", "e", "f")
SAMPLING = SamplingSettings(num_inference_steps=3, guidance_scale=2.0, options={"negative_prompt": "z"})
BATCH = 2
"""Images made at once."""


@dataclass(frozen=True)
class Aligned:
    """What a run hands out."""

    model: ModelSettings
    directory: Path
    """What `export_model` wrote."""
    images: list[np.ndarray]
    """Of `PROMPTS`, as the run's evaluation drew them: uint8 [H, W, 3]."""

    def register(self, uri: str, name: str, *, run_id: str | None = None, **options: Any) -> str:
        """Register it, by a new MLflow run if none is named; returns `models:/NAME/VERSION`."""
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = mlflow.MlflowClient(uri, uri)
        found = client.get_experiment_by_name("aligned")
        # Without a server, artifacts would land in the directory the test was started from.
        place = f"file://{self.directory.parent}/artifacts" if uri.startswith("sqlite:") else None
        experiment = found.experiment_id if found else client.create_experiment("aligned", place)
        run_id = run_id or client.create_run(experiment).info.run_id
        recipe = Recipe.of(SAMPLING, self.model.dtype, BATCH, self.model.dtypes)
        arguments = {"examples": examples_of(PROMPTS, SEED), "provenance": {"git_revision": "abc"}} | options
        return register_model(client, run_id, name, self.directory, self.model.base, recipe, **arguments)


def aligned(base: Path | str, directory: Path, **changes: Any) -> Aligned:
    """Train nothing, but have weights as after training; `changes` are of `ModelSettings`."""
    model = ModelSettings(base=str(base), **({} if "train" in changes else {"lora": LORA}) | changes)
    pipeline = load_model(model)
    trained = attach_working_copy(pipeline.components, model)
    weights = trained_weights(base, model.lora) if model.train == "lora" else _moved(trained)
    export_model(directory, model, weights)
    set_parameters(trained, weights)
    images = []
    for first in range(0, len(PROMPTS), BATCH):
        indices = range(first, min(first + BATCH, len(PROMPTS)))
        batch = draw_images(pipeline, SAMPLING, SEED, [PROMPTS[i] for i in indices], indices)
        images += [np.asarray(open_image(to_png(picture(image, "image")))) for image in batch]
    return Aligned(model, directory, images)


def rows() -> list[dict[str, Any]]:
    """`PROMPTS` with the seeds that the evaluation's noise had, as the registered model takes them."""
    return [{"prompt": prompt, "seed": derive_seed(SEED, "evaluation noise", i)} for i, prompt in enumerate(PROMPTS)]


def _moved(modules: dict[str, Any]) -> dict[str, Any]:
    return {name: p.detach() * 1.1 for name, p in trained_parameters(modules).items()}

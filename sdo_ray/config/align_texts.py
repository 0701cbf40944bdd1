"""The prompts of an alignment run: what it is bound to, and what the model does not read of them."""

from __future__ import annotations

import json

from sdo_ray.config.align import AlignSettings
from sdo_ray.models.tokens import said_of
from sdo_ray.prompts.heldout import read_heldout
from sdo_ray.prompts.read import read_prompts
from sdo_ray.settings import under


def said_of_prompts(settings: AlignSettings) -> list[str]:
    """What the model does not read of its prompts, a line a setting.

    Raises:
        SettingsError: the model's tokenizers cannot be read.
    """
    given: dict[str, list[str]] = {
        **prompts_of(settings),
        "tracking.preview_prompts": settings.tracking.preview_prompts,
        **settings.sampling.negative_prompts,
    }
    with under("model"):
        return said_of(settings.model.reference, given)


def texts_of(settings: AlignSettings) -> dict[str, list[str]]:
    """What a run is bound to: the prompts, and what else the pipeline is given with those to learn on."""
    inputs = [json.dumps(dict(row)) for row in settings.inputs()]
    return prompts_of(settings) | ({"prompts.inputs": inputs} if inputs else {})


def prompts_of(settings: AlignSettings) -> dict[str, list[str]]:
    """Setting -> the prompts of the file that it names."""
    evaluation = settings.evaluation
    return {
        "prompts.train": list(read_prompts(settings.prompts.train, settings.prompts.column)),
        "evaluation.prompts": read_heldout(evaluation.prompts, evaluation.column)["prompt"].to_pylist(),
    }

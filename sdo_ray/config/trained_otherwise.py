"""What an evaluation says of how its models were trained, where that is a run of `sdo align` here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from sdo_ray.config.roles import run_directory
from sdo_ray.config.run import FILE as SETTINGS
from sdo_ray.evaluation.result import CANDIDATE, CHAMPION
from sdo_ray.evaluation.settings import ModelsSettings
from sdo_ray.prompts.heldout import said_of_both
from sdo_ray.prompts.read import read_prompts
from sdo_ray.registry.versions import is_registered
from sdo_ray.rollout.settings import PromptSettings, SamplingSettings
from sdo_ray.settings import SettingsError


def said_of_questions(models: ModelsSettings, questions: pa.Table) -> list[str]:
    """Of each model: how many of the questions it was trained on, if any.

    Args:
        models: as they were named.
        questions: with a column `prompt`.
    """
    said = []
    for role, settings in _trained(models):
        try:
            prompts = PromptSettings.model_validate(settings.get("prompts"))
            learned = read_prompts(prompts.train, prompts.column)
        except (SettingsError, ValidationError):
            continue  # its file need not be there any more
        if both := said_of_both(learned, questions):
            said.append(f"{role}: {both}; the comparison is not held out from it")
    return said


def said_of_sampling(models: ModelsSettings, sampling: SamplingSettings) -> list[str]:
    """Of each model: in what it is drawn otherwise than it was trained, its size above all, if in anything.

    Args:
        models: as they were named.
        sampling: of the evaluation.
    """
    said, now = [], _call(sampling.to_dict())
    for role, settings in _trained(models):
        then = _call(settings["sampling"]) if "sampling" in settings else now  # it says nothing of it
        apart = [
            f"{name} {then.get(name, 'by default')} (here {now.get(name, 'by default')})"
            for name in sorted(then.keys() | now.keys())
            if then.get(name) != now.get(name)
        ]
        if apart:
            said.append(f"{role}: it was trained with {', '.join(apart)}")
    return said


def _call(sampling: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the pipeline's call but the prompts."""
    own = {name: sampling[name] for name in ("num_inference_steps", "guidance_scale") if name in sampling}
    return own | sampling.get("options", {})


def _trained(models: ModelsSettings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Role and settings of those that are runs of `sdo align` here."""
    for role, choice in ((CANDIDATE, models.candidate), (CHAMPION, models.champion)):
        if choice is None or choice.model is None or is_registered(choice.model):
            continue
        if (run := run_directory(choice.model)) is not None:
            yield role, run.read_json(SETTINGS)

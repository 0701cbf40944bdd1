"""That what is evaluated is what will be served: the cheap steps of a registered model's recipe."""

from __future__ import annotations

from sdo_ray.cheap_steps.settings import CheapStepsSettings
from sdo_ray.config.loading import validated
from sdo_ray.registry.recipe import CHEAP, Recipe
from sdo_ray.settings import Problem, Problems


def check_served(reference: str, recipe: Recipe, sampling: CheapStepsSettings) -> None:
    """Refuse an evaluation of a candidate with other cheap steps than its recipe says it is served with.

    Args:
        reference: the candidate's.
        recipe: how its images are made wherever it is used.
        sampling: how the evaluation makes them.

    Raises:
        SettingsError: they differ; one line for each setting.
    """
    served = validated(CheapStepsSettings, {name: getattr(recipe, name) for name in CHEAP})
    with Problems() as problems:
        for name in CHEAP:
            theirs, ours = getattr(served, name), getattr(sampling, name)
            if theirs != ours:
                said = "none" if ours is None else ours.model_dump(exclude_defaults=True)
                given = "null" if theirs is None else theirs.model_dump(exclude_defaults=True)
                got = f"got {said}, and {reference} is served with {'none' if theirs is None else given}"
                fix = f"say {name}: {given}, so that what is measured is what is served"
                problems.add(Problem(f"sampling.{name}", got, fix=fix))

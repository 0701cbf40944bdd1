"""The settings of one evaluation, composed of what each room declares, and the checks across rooms."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from pydantic import Field

from rewards.modality import Made, named
from sdo_ray.cluster import Demand
from sdo_ray.config.encoders import check_texts
from sdo_ray.config.rewards import check_names, check_rewards, reward_demands
from sdo_ray.config.run import RunSettings
from sdo_ray.evaluation.features import check_features
from sdo_ray.evaluation.metrics import ABOUT
from sdo_ray.evaluation.reference import check_reference
from sdo_ray.evaluation.settings import (
    FeatureSettings,
    HeldoutSettings,
    ModelsSettings,
    ReferenceSettings,
    ReportSettings,
)
from sdo_ray.prompts.heldout import draw_questions, read_heldout
from sdo_ray.prompts.inputs import COLUMN, Prompts, argument_of, from_column, read_inputs, texts_of, with_texts
from sdo_ray.rollout.reward_settings import RewardActorSettings
from sdo_ray.rollout.settings import SamplerSettings, SamplingSettings
from sdo_ray.settings import Problem, Problems, Settings, SettingsError, under
from sdo_ray.tracking.settings import ExperimentSettings


class EvaluateSettings(Settings):
    """Models side by side on the same held-out prompts and noise."""

    run: RunSettings
    models: ModelsSettings
    prompts: HeldoutSettings
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    rewards: list[RewardActorSettings] = Field(
        min_length=1,
        description="What scores the images: rewards that were trained on, and better those that were not.",
    )
    features: FeatureSettings | None = Field(
        default_factory=FeatureSettings, description="`null` leaves out what is measured with it."
    )
    reference: ReferenceSettings | None = Field(None, description="There need be none.")
    samplers: SamplerSettings = Field(default_factory=SamplerSettings)
    report: ReportSettings = Field(default_factory=ReportSettings)
    tracking: ExperimentSettings = Field(default_factory=ExperimentSettings)

    @property
    def columns(self) -> dict[str, str]:
        """What is read besides prompts, see `with_texts`."""
        return with_texts(self.prompts.inputs, [reward.text for reward in self.rewards])

    def demands(self) -> list[Demand]:
        """What runs at the same time."""
        parts = [Demand("samplers", self.samplers.count, self.samplers.num_cpus, self.samplers.num_gpus)]
        parts += reward_demands(self.rewards)
        if self.features is not None:
            parts.append(Demand("features", 1, self.features.num_cpus, self.features.num_gpus))
        return parts


def check_evaluate(settings: EvaluateSettings) -> pa.Table:
    """Refuse what cannot work, before anything starts; all problems at once. The models are checked by `find_roles`.

    Returns:
        The questions, of `draw_questions`.

    Raises:
        SettingsError: with one line a problem.
    """
    questions = pa.table({"prompt": pa.array([], pa.string())})
    with Problems() as problems:
        with problems.of():
            questions = _read_questions(settings)
        with problems.of("rewards"):
            inputs = settings.columns
            rows = from_column(questions[COLUMN].to_pylist()) if COLUMN in questions.column_names else []
            asked = Prompts(questions["prompt"].to_pylist(), rows)
            given = [texts_of(asked, argument_of(reward.text, inputs) if rows else None) for reward in settings.rewards]
            check_rewards(settings.rewards, given)
        with problems.of("rewards"):
            check_names(settings.rewards)
        with problems.of():
            check_texts(settings.samplers, settings.sampling, None)  # the models are known to `find_roles` alone
        for name in sorted(ABOUT.keys() & {reward.key for reward in settings.rewards}):
            got = f"{name!r} is measured anyway, and is no name for a reward"
            problems.add(Problem("rewards", got, fix="register it under another"))
        if settings.features is not None:
            with problems.of("features"):
                check_features(settings.features)
        if settings.reference is not None:
            with problems.of("reference"):
                check_reference(settings.reference)
            if settings.features is None:
                got = "given, but features are null, and they are what is compared"
                problems.add(Problem("reference", got, fix="give both"))
    return questions


def check_made(settings: EvaluateSettings, made: Mapping[str, Made]) -> Made:
    """Refuse models that make different things, and what cannot be measured of what they make.

    Args:
        settings: of the evaluation.
        made: role -> what its model makes.

    Returns:
        What they make.

    Raises:
        SettingsError: with one line a problem.
    """
    if len(set(made.values())) > 1:
        got = ", ".join(f"the {role} makes {_said(one)}" for role, one in made.items())
        raise SettingsError(Problem("models", got, fix="compare models of one kind"))
    common = next(iter(made.values()))
    modality = common.modality
    with Problems() as problems:
        with problems.of("rewards"):
            check_rewards(settings.rewards, made=common)
        if settings.features is not None and modality not in ("image", "video"):
            got = f"they are of images, and the models make {named(modality)}"
            problems.add(Problem("features", got, fix="give `features: null`"))
        if settings.reference is not None and modality != "image":
            got = f"it has images, and the models make {named(modality)}"
            problems.add(Problem("reference", got, fix="remove it"))
    return common


def _said(made: Made) -> str:
    return named(made.modality) + ("" if made.sampling_rate is None else f" of {made.sampling_rate} Hz")


def _read_questions(settings: EvaluateSettings) -> pa.Table:
    asked, needed = settings.prompts, "category" in settings.prompts.model_fields_set
    with under("prompts.heldout"):
        read_inputs(asked.heldout, asked.column, settings.columns, batch_size=settings.samplers.batch_size)
        prompts = read_heldout(
            asked.heldout, asked.column, asked.category, category_needed=needed, inputs=settings.columns
        )
    with under("prompts.num_prompts"):
        return draw_questions(prompts, asked.num_prompts, settings.run.seed, images_per_prompt=asked.images_per_prompt)

"""The settings of one cycle: prompts, and the settings files of its stages."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pydantic import Field

from sdo_ray.config.align import AlignSettings
from sdo_ray.config.align_checks import check_align
from sdo_ray.config.calls import check_options, check_pipeline
from sdo_ray.config.evaluate import EvaluateSettings, check_evaluate
from sdo_ray.config.loading import load_settings
from sdo_ray.config.rewards import check_reward_names
from sdo_ray.config.run import RunSettings
from sdo_ray.evaluation.metrics import DISTANCE, DIVERSITY, FRECHET_BASE, FRECHET_REFERENCE, PIXELS, SECONDS
from sdo_ray.evaluation.result import CANDIDATE, CHAMPION
from sdo_ray.promotion.measured import Measured, check_rules
from sdo_ray.promotion.settings import PromoteSettings
from sdo_ray.prompts.prepare import Preparation
from sdo_ray.prompts.settings import PreparationSettings
from sdo_ray.seeds import derive_seed
from sdo_ray.settings import Problem, Problems, Settings, SettingsError, SettingsPath, under
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.settings import ExperimentSettings


class StageSettings(Settings):
    """A stage has the settings file of its own command; names, prompts and models in it are replaced by the cycle's."""

    config: SettingsPath = Field(description="The settings file. Relative paths start at the cycle's settings file.")
    set: dict[str, Any] = Field(
        default_factory=dict, description="Changes to it, by dotted name: `{training.updates: 200}`."
    )

    def changes(self, **ours: Any) -> dict[str, Any]:
        """As `load_settings` takes them; `ours`, with `__` for dots, come last."""
        return self.set | {name.replace("__", "."): value for name, value in ours.items()}


class CycleSettings(Settings):
    """Prepare prompts, align, evaluate, promote; `run.name` is the cycle's id."""

    run: RunSettings
    prompts: PreparationSettings
    align: StageSettings = Field(description="Settings of `sdo align`.")
    evaluate: StageSettings = Field(description="Settings of `sdo evaluate`.")
    promote: StageSettings = Field(description="Settings of `sdo promote`.")
    tracking: ExperimentSettings = Field(default_factory=ExperimentSettings)

    def align_settings(self, prompts: Preparation) -> AlignSettings:
        """Of the alignment, on the prepared prompts.

        Raises:
            SettingsError: see `load_settings`.
        """
        changes = self.align.changes(
            run__name=f"{self.run.name}-align",
            run__storage=self.run.storage,
            run__seed=self.run.seed,
            prompts__train=prompts.train,
            prompts__column="prompt",
            evaluation__prompts=prompts.heldout,
            evaluation__column="prompt",
        )
        return _load("align", AlignSettings, self.align, changes)

    def evaluate_settings(
        self, prompts: Preparation, attempt: int, candidate: str, champion: str | None
    ) -> EvaluateSettings:
        """Of the evaluation number `attempt`, from 1, of a candidate against a champion, if there is one.

        Raises:
            SettingsError: see `load_settings`.
        """
        changes = self.evaluate.changes(
            run__name=f"{self.run.name}-evaluate-{attempt}",
            run__storage=self.run.storage,
            # Prompts and noise of its own: the same every night, some candidate that is no better passes at last.
            run__seed=derive_seed(self.run.seed, f"evaluation of {self.run.name}", 0),
            prompts__heldout=prompts.heldout,
            prompts__column="prompt",
            prompts__category="category",
            **{f"models__{CANDIDATE}": candidate, f"models__{CHAMPION}": champion},
        )
        return _load("evaluate", EvaluateSettings, self.evaluate, changes)

    def promote_settings(self, attempt: int) -> PromoteSettings:
        """Of the promotion by evaluation number `attempt`.

        Raises:
            SettingsError: see `load_settings`.
        """
        changes = self.promote.changes(
            evaluation__name=f"{self.run.name}-evaluate-{attempt}",
            evaluation__storage=RunDirectory(self.run.storage, self.run.name).storage,
        )
        return _load("promote", PromoteSettings, self.promote, changes)


def check_cycle(settings: CycleSettings) -> str:
    """Refuse stages that cannot work together, before the first begins.

    Returns:
        The registered model's name.

    Raises:
        SettingsError: one line a problem.
    """
    somewhere = Preparation("-", "-", 0, 0, 0, {})
    with Problems() as problems:
        for stage, load in (
            ("align", lambda: settings.align_settings(somewhere)),
            ("evaluate", lambda: settings.evaluate_settings(somewhere, 1, "models:/-/1", None)),
        ):
            with problems.of():
                loaded = load()
                with under(stage):
                    check_reward_names(loaded)
        with problems.of():
            promote = settings.promote_settings(1)
            with under("promote"):
                promote.rules()
    registered = settings.align_settings(somewhere).tracking.register_as
    promoted = settings.promote_settings(1).promotion.model
    if registered != promoted:
        raise SettingsError(
            Problem(
                "promote",
                f"promotion.model in {settings.promote.config!r} is {promoted!r}, but tracking.register_as in "
                f"{settings.align.config!r} is {registered!r}",
                "the cycle promotes what it registers",
                "name one model",
            )
        )
    return promoted


def check_stages(settings: CycleSettings, prompts: Preparation) -> None:
    """Refuse what any stage would refuse, before the first begins.

    Args:
        settings: of the cycle, which `check_cycle` let through.
        prompts: prepared from its source.

    Raises:
        SettingsError: one line a problem, each of its stage.
    """
    align, evaluate = settings.align_settings(prompts), settings.evaluate_settings(prompts, 1, "models:/-/1", None)
    with Problems() as problems:
        with problems.of("align"):
            check_align(align)
        if align.model.base != evaluate.models.base.model:
            got = f"got {evaluate.models.base.model!r}, and the candidate is made of align's {align.model.base!r}"
            problems.add(Problem("evaluate.models.base", got, fix="name the same"))
        else:
            with problems.of("evaluate.sampling"):
                check_options(check_pipeline(align.model.base), evaluate.sampling)
        measured = None
        with problems.of("evaluate"):
            measured = measured_by(evaluate, check_evaluate(evaluate))
        if measured is not None:
            with problems.of("promote"):
                # Whether there is a champion is known once it is promoted.
                check_rules(settings.promote_settings(1).rules(), measured, has_champion=True)


def measured_by(settings: EvaluateSettings, questions: pa.Table) -> Measured:
    """What an evaluation will say of its models.

    Args:
        settings: of the evaluation.
        questions: of `check_evaluate`.
    """
    images, sets = [reward.key for reward in settings.rewards] + [PIXELS], [SECONDS]
    if settings.features is not None:
        images += [DISTANCE, *([DIVERSITY] if settings.prompts.images_per_prompt > 1 else [])]
        sets += [FRECHET_BASE, *([FRECHET_REFERENCE] if settings.reference is not None else [])]
    return Measured(images, sets, len(set(questions["prompt"].to_pylist())))


def _load(name: str, kind: Any, stage: StageSettings, changes: dict[str, Any]) -> Any:
    with under(name):
        return load_settings(kind, stage.config, changes=changes)

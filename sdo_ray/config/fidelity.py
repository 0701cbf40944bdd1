"""The settings of one comparison of gradients, and the checks across rooms."""

from __future__ import annotations

from pydantic import Field

from rewards.registry import check
from rewards.terms import check_terms
from sdo_ray.cluster import Demand
from sdo_ray.config.calls import check_call, check_estimator
from sdo_ray.config.run import RunSettings
from sdo_ray.fidelity.settings import FidelitySettings
from sdo_ray.fidelity.worker import GradientConfig
from sdo_ray.models.load import check_base
from sdo_ray.models.settings import ModelSettings
from sdo_ray.prompts.read import read_prompts
from sdo_ray.rollout.settings import MixSettings, PromptSettings, SamplerSettings, SamplingSettings
from sdo_ray.settings import Problem, Settings, SettingsError
from sdo_ray.tracking.settings import ExperimentSettings


class FidelityRunSettings(Settings):
    """Everything about one comparison of gradients."""

    run: RunSettings
    model: ModelSettings
    prompts: PromptSettings
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    rewards: MixSettings
    samplers: SamplerSettings = Field(default_factory=SamplerSettings)
    fidelity: FidelitySettings = Field(default_factory=FidelitySettings)
    tracking: ExperimentSettings = Field(default_factory=ExperimentSettings)

    def demands(self) -> list[Demand]:
        """What runs at the same time."""
        rewards = [Demand(f"reward {term.name}", 1, term.num_cpus, term.num_gpus) for term in self.rewards.terms]
        return [Demand("samplers", self.samplers.count, self.samplers.num_cpus, self.samplers.num_gpus), *rewards]

    def gradient_config(self) -> GradientConfig:
        """What the actors need to know."""
        return GradientConfig(
            seed=self.run.seed,
            model=self.model,
            sampling=self.sampling,
            mix=self.rewards,
            samplers=self.samplers,
            draws=self.fidelity.draws,
            checkpoint=self.fidelity.checkpoint,
        )


def check_fidelity(settings: FidelityRunSettings) -> None:
    """Refuse what cannot work, before anything starts; all problems at once.

    Raises:
        SettingsError: with one line a problem.
    """
    problems: list[Problem | str] = []
    for check_part in (_check_model, _check_plans, _check_rewards, _check_prompts):
        try:
            check_part(settings)
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(*problems)


def _check_model(settings: FidelityRunSettings) -> None:
    check_base(settings.model.base)
    check_call(settings.model.base, settings.sampling, "model.base")


def _check_plans(settings: FidelityRunSettings) -> None:
    problems, plans = [], settings.fidelity.plans
    base: str | None = settings.model.base
    try:
        _check_model(settings)
    except SettingsError:
        base = None  # said by the check of the model
    for number, plan in enumerate(plans):
        if plan in plans[:number]:
            problems.append(f"fidelity.plans.{number}: {plan.name!r} with these options is there already; remove one.")
        if plan.name == "full":
            problems.append(f"fidelity.plans.{number}: `full` is what the others are compared with; remove it.")
            continue
        try:
            check_estimator(plan, settings.sampling, base)
        except SettingsError as error:
            problems += [
                f"fidelity.plans.{number}: {str(problem).removeprefix('plan: ')}" for problem in error.problems
            ]
    if problems:
        raise SettingsError(*problems)


def _check_rewards(settings: FidelityRunSettings) -> None:
    terms = settings.rewards.terms
    try:
        for term in terms:
            check(term.name, term.options)
        check_terms([term.term for term in terms])
    except ValueError as error:
        raise SettingsError(f"rewards.terms: {error}") from None


def _check_prompts(settings: FidelityRunSettings) -> None:
    try:
        count = len(read_prompts(settings.prompts.train, settings.prompts.column))
    except SettingsError as error:
        raise SettingsError(*(f"prompts.train: {problem}" for problem in error.problems)) from None
    needed = settings.fidelity.batches * settings.samplers.batch_size
    if count < needed:
        raise SettingsError(
            f"fidelity.batches: got {settings.fidelity.batches}, of samplers.batch_size = "
            f"{settings.samplers.batch_size} prompts, {needed} in all, but {settings.prompts.train!r} has {count}; "
            "lower one of them."
        )

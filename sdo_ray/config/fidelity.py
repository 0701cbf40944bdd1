"""The settings of one comparison of gradients, and the checks across rooms."""

from __future__ import annotations

from pydantic import Field

from sdo_ray.cheap_steps.settings import OURS
from sdo_ray.cluster import Demand
from sdo_ray.config.calls import asks_others, check_estimator, check_inputs, check_model, made_if_known
from sdo_ray.config.encoders import check_rounded, check_trained_texts
from sdo_ray.config.rewards import check_learned, check_rewards, refuse_row_weights, reward_demands
from sdo_ray.config.run import RunSettings
from sdo_ray.fidelity.settings import FidelitySettings
from sdo_ray.fidelity.worker import GradientConfig
from sdo_ray.models.settings import ModelSettings
from sdo_ray.prompts.inputs import Row, read_inputs, with_texts
from sdo_ray.prompts.read import read_prompts
from sdo_ray.rollout.reward_settings import MixSettings
from sdo_ray.rollout.settings import PromptSettings, SamplerSettings, SamplingSettings
from sdo_ray.settings import Problem, Problems, Settings, SettingsError, under
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

    @property
    def columns(self) -> dict[str, str]:
        """What is read besides prompts, see `with_texts`."""
        return with_texts(self.prompts.inputs, [reward.text for reward in self.rewards.terms])

    def inputs(self) -> list[Row]:
        """What the pipeline and rewards are given besides each prompt; empty if no more.

        Raises:
            SettingsError: see `read_inputs`.
        """
        return read_inputs(self.prompts.train, self.prompts.column, self.columns)

    def demands(self) -> list[Demand]:
        """What runs at the same time."""
        samplers = Demand("samplers", self.samplers.count, self.samplers.num_cpus, self.samplers.num_gpus)
        return [samplers, *reward_demands(self.rewards.terms)]

    def gradient_config(self) -> GradientConfig:
        """What the actors need to know."""
        return GradientConfig(
            seed=self.run.seed,
            model=self.model,
            sampling=self.sampling.with_example_of(self.inputs()),
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
    with Problems() as problems:
        for check_part in (_check_model, _check_plans, _check_cheap_steps, _check_rewards, _check_prompts):
            with problems.of():
                check_part(settings)


def _check_model(settings: FidelityRunSettings) -> None:
    kind = check_model(settings.model.reference, settings.sampling, settings.model.dtypes)
    check_rounded(settings.model)
    check_trained_texts(settings.model, settings.samplers, settings.sampling, settings.model.reference)
    with under("prompts.inputs"):
        check_inputs(kind, settings.prompts.inputs, settings.sampling)


def _check_plans(settings: FidelityRunSettings) -> None:
    plans = settings.fidelity.plans
    base: str | None = settings.model.reference
    try:
        _check_model(settings)
    except SettingsError:
        base = None  # said by the check of the model
    with Problems() as problems:
        for number, plan in enumerate(plans):
            setting = f"fidelity.plans.{number}"
            if plan in plans[:number]:
                got = f"{plan.name!r} with these options is there already"
                problems.add(Problem(setting, got, fix="remove one"))
            if plan.name == "full":
                problems.add(Problem(setting, "`full` is what the others are compared with", fix="remove it"))
                continue
            with problems.of():
                check_estimator(plan, settings.sampling, setting, base)
                if asks_others(plan, settings.sampling.num_inference_steps):
                    got = f"{plan.name!r} with these options learns by other policies' weights, and here is only one"
                    problems.add(Problem(setting, got, fix="leave loss, kl and output_kl out; nft and awm altogether"))


def _check_cheap_steps(settings: FidelityRunSettings) -> None:
    sampling, ways = settings.sampling, settings.fidelity.cheap_steps
    with Problems() as problems:
        for name in ("cache", "fast_copy"):
            if getattr(sampling, name) is not None:
                got = "given, but `full` has exact steps, and plans are compared with it"
                problems.add(Problem(f"sampling.{name}", got, fix="name it in fidelity.cheap_steps"))
        for number, way in enumerate(ways):
            setting = f"fidelity.cheap_steps.{number}"
            if way in ways[:number] or not way.words:
                problems.add(Problem(setting, "says nothing new", fix="remove it"))
            if way.cache is not None and not way.cache.is_ours:
                got = f"got {way.cache.name!r}, which stays in the model once it is on"
                problems.add(Problem(f"{setting}.cache.name", got, fix=f"choose one of {', '.join(OURS)}"))
            elif way.cache is not None:
                try:
                    way.cache.check_steps(sampling.num_inference_steps)
                except ValueError as error:
                    problems.add(Problem(setting, str(error)))
        if ways and settings.fidelity.plans[0].is_policy_gradient:
            got = f"got {settings.fidelity.plans[0].name!r} first, whose groups are not sampled so"
            problems.add(Problem("fidelity.plans.0", got, fix="let a plan such as sdo come first"))


def _check_rewards(settings: FidelityRunSettings) -> None:
    terms = settings.rewards.terms
    with under("rewards.terms"):
        check_rewards(terms, (), made_if_known(settings.model.reference))
        check_learned(terms)
        refuse_row_weights(terms)


def _check_prompts(settings: FidelityRunSettings) -> None:
    batches, size, given = settings.fidelity.batches, settings.samplers.batch_size, settings.prompts
    with under("prompts.train"):
        count = len(read_prompts(given.train, given.column))
        read_inputs(given.train, given.column, settings.columns, batch_size=size)
    if count < batches * size:
        raise SettingsError(
            Problem(
                "fidelity.batches",
                f"got {batches}, of samplers.batch_size = {size} prompts, {batches * size} in all, but "
                f"{settings.prompts.train!r} has {count}",
                fix="lower one of them",
            )
        )

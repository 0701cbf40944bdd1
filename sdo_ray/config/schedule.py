"""The settings of one search for a schedule of cheap steps, and the checks across rooms."""

from __future__ import annotations

from pydantic import Field

from sdo_ray.cluster import Demand
from sdo_ray.config.calls import check_estimator, check_inputs, check_model, made_if_known
from sdo_ray.config.encoders import check_rounded, check_trained_texts
from sdo_ray.config.rewards import check_learned, check_rewards, refuse_row_weights, reward_demands
from sdo_ray.config.run import RunSettings
from sdo_ray.models.settings import ModelSettings
from sdo_ray.prompts.inputs import Row, read_inputs, with_texts
from sdo_ray.prompts.read import read_prompts
from sdo_ray.rollout.reward_settings import MixSettings, RewardSettings
from sdo_ray.rollout.settings import PromptSettings, SamplerSettings, SamplingSettings
from sdo_ray.settings import Problem, Problems, Settings, SettingsError, under
from sdo_ray.step_search.candidate import Genes
from sdo_ray.step_search.settings import SearchSettings
from sdo_ray.step_search.worker import TrialConfig
from sdo_ray.tracking.settings import ExperimentSettings


class ScheduleSettings(Settings):
    """Everything about one search."""

    run: RunSettings
    model: ModelSettings
    prompts: PromptSettings
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    rewards: MixSettings | None = Field(None, description="None: gradients and scores are not compared.")
    samplers: SamplerSettings = Field(default_factory=SamplerSettings)
    search: SearchSettings
    tracking: ExperimentSettings = Field(default_factory=ExperimentSettings)

    @property
    def terms(self) -> list[RewardSettings]:
        """The rewards, if any."""
        return [] if self.rewards is None else self.rewards.terms

    @property
    def genes(self) -> Genes:
        """What is chosen from."""
        return Genes(self.search.holds, self.search.orders, self.sampling.num_inference_steps)

    @property
    def columns(self) -> dict[str, str]:
        """What is read besides prompts, see `with_texts`."""
        return with_texts(self.prompts.inputs, [reward.text for reward in self.terms])

    def inputs(self) -> list[Row]:
        """What the pipeline and the rewards are given besides each prompt; empty if no more.

        Raises:
            SettingsError: see `read_inputs`.
        """
        return read_inputs(self.prompts.train, self.prompts.column, self.columns)

    def demands(self) -> list[Demand]:
        """What runs at the same time."""
        samplers = Demand("samplers", self.samplers.count, self.samplers.num_cpus, self.samplers.num_gpus)
        return [samplers, *reward_demands(self.terms)]

    def trial_config(self) -> TrialConfig:
        """What the actors need to know."""
        sampling = self.sampling.with_example_of(self.inputs())
        return TrialConfig(self.run.seed, self.model, sampling, self.rewards, self.samplers, self.search.plan)


def check_schedule(settings: ScheduleSettings) -> None:
    """Refuse what cannot work, before anything starts; all problems at once.

    Raises:
        SettingsError: with one line a problem.
    """
    with Problems() as problems:
        for check_part in (_check_model, _check_steps, _check_rewards, _check_prompts):
            with problems.of():
                check_part(settings)


def _check_model(settings: ScheduleSettings) -> None:
    kind = check_model(settings.model.reference, settings.sampling, settings.model.dtypes)
    check_rounded(settings.model)
    check_trained_texts(settings.model, settings.samplers, settings.sampling, settings.model.reference)
    with under("prompts.inputs"):
        check_inputs(kind, settings.prompts.inputs, settings.sampling)


def _check_steps(settings: ScheduleSettings) -> None:
    if settings.sampling.cache is not None:
        got = "given, but which steps are computed is what is searched"
        raise SettingsError(Problem("sampling.cache", got, fix="remove it, or name a way in search.holds"))
    if settings.sampling.num_inference_steps < 3:
        got = f"got {settings.sampling.num_inference_steps}, of which nothing can be held and searched"
        raise SettingsError(Problem("sampling.num_inference_steps", got, "3 or more"))
    for steps in {settings.sampling.num_inference_steps, *settings.search.check_steps}:
        sampling = settings.sampling.model_copy(update={"num_inference_steps": steps})
        check_estimator(settings.search.plan, sampling, "search.plan", None)


def _check_rewards(settings: ScheduleSettings) -> None:
    if settings.rewards is None:
        if settings.search.compare != "latents":
            got = f"got {settings.search.compare!r}, and there are no rewards"
            raise SettingsError(Problem("search.compare", got, fix="give rewards, or compare latents"))
        return
    with under("rewards.terms"):
        check_rewards(settings.terms, made=made_if_known(settings.model.reference))
        check_learned(settings.terms)
        refuse_row_weights(settings.terms)


def _check_prompts(settings: ScheduleSettings) -> None:
    search, size, given = settings.search, settings.samplers.batch_size, settings.prompts
    with under("prompts.train"):
        count = len(read_prompts(given.train, given.column))
        read_inputs(given.train, given.column, settings.columns, batch_size=size)
    if count < (needed := (search.batches + search.check_batches) * size):
        got = (
            f"{search.batches} batches to search on and {search.check_batches} others of {size} prompts are {needed} "
            f"in all, but {settings.prompts.train!r} has {count}"
        )
        raise SettingsError(Problem("search.batches", got, fix="lower search.batches or samplers.batch_size"))

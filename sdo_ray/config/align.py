"""The settings of one alignment run, composed of what each room declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from sdo_ray.cluster import Demand
from sdo_ray.config.calls import (
    made_if_known,
    samples_per_prompt,
)
from sdo_ray.config.rewards import reward_demands
from sdo_ray.config.run import LongRunSettings
from sdo_ray.evaluation.settings import EvaluationSettings
from sdo_ray.models.settings import ModelSettings
from sdo_ray.prompts.heldout import draw_questions, read_heldout
from sdo_ray.prompts.inputs import COLUMN, Row, from_column, read_inputs, with_texts, with_weights
from sdo_ray.prompts.read import read_prompts
from sdo_ray.rollout.held_out import OF_IMAGES
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings
from sdo_ray.rollout.looks import HeldOut
from sdo_ray.rollout.reward_settings import MixSettings
from sdo_ray.rollout.sampler_config import SamplerConfig
from sdo_ray.rollout.settings import LearningSamplerSettings, PlanSettings, PromptSettings, SamplingSettings
from sdo_ray.settings import Problem, Settings, SettingsError
from sdo_ray.tracking.settings import TrackingSettings
from sdo_ray.training.settings import TrainerSettings, TrainingSettings


class AlignSettings(Settings):
    """Everything about one alignment run."""

    run: LongRunSettings
    model: ModelSettings
    prompts: PromptSettings
    sampling: LearnedSamplingSettings = Field(default_factory=LearnedSamplingSettings)
    plan: PlanSettings = Field(default_factory=PlanSettings)
    rewards: MixSettings
    samplers: LearningSamplerSettings = Field(default_factory=LearningSamplerSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    trainers: TrainerSettings = Field(default_factory=TrainerSettings)
    evaluation: EvaluationSettings
    tracking: TrackingSettings = Field(default_factory=TrackingSettings)

    @property
    def contributions_per_update(self) -> int:
        """What an update is the sum of."""
        return self.training.batch_size // self.samplers.rows_per_contribution

    @property
    def samples_per_prompt(self) -> int:
        """Images that are made of each row: more than one in groups."""
        return samples_per_prompt(self.plan, self.sampling.num_inference_steps)

    @property
    def shown_sampling(self) -> SamplingSettings:
        """How the images of the comparison are made, and those of what is handed out."""
        called = self.called_sampling
        return called if self.evaluation.cheap_steps else called.model_copy(update={"cache": None, "fast_copy": None})

    @property
    def called_sampling(self) -> LearnedSamplingSettings:
        """How the pipeline is called, with an example of what it is given besides prompts."""
        return self.sampling.with_example_of(self.inputs())

    @property
    def columns(self) -> dict[str, str]:
        """What is read besides prompts, see `with_texts`."""
        return with_texts(
            self.prompts.inputs, [reward.text for reward in (*self.rewards.terms, *self.evaluation.evaluators)]
        )

    def inputs(self) -> list[Row]:
        """What the pipeline and rewards are given besides each prompt to learn on; empty if no more.

        Raises:
            SettingsError: see `read_inputs`.
        """
        return read_inputs(self.prompts.train, self.prompts.column, self.learned_columns)

    @property
    def learned_columns(self) -> dict[str, str]:
        """Likewise of the prompts to learn on, with what weighs rewards."""
        return with_weights(self.columns, [term.weigh_by for term in self.rewards.terms])

    def preview_inputs(self) -> tuple[Row, ...]:
        """Likewise of the preview's prompts: those of the first row with that prompt.

        Raises:
            SettingsError: no row has one.
        """
        if not self.prompts.inputs:
            return ()
        prompts = read_prompts(self.prompts.train, self.prompts.column)
        if absent := [text for text in self.tracking.preview_prompts if text not in prompts]:
            got = f"{absent[0]!r} is no prompt of {self.prompts.train!r}, so there are no inputs for it"
            raise SettingsError(Problem("tracking.preview_prompts", got, fix="take prompts of that file"))
        inputs = self.inputs()
        return tuple(inputs[prompts.index(text)] for text in self.tracking.preview_prompts)

    def demands(self) -> list[Demand]:
        """What runs at the same time.

        Evaluators start when the trainers are gone, so that the larger of the two counts, unless they look during
        training.
        """
        rewards = reward_demands(self.rewards.terms)
        evaluators = reward_demands(self.evaluation.evaluators, "evaluator")
        samplers = self.samplers
        trainers = [Demand("trainers", self.trainers.count, self.trainers.num_cpus, self.trainers.num_gpus)]
        larger = max(
            trainers,
            evaluators,
            key=lambda part: (sum(d.count * d.num_gpus for d in part), sum(d.count * d.num_cpus for d in part)),
        )
        return [
            Demand("samplers", samplers.count, samplers.num_cpus, samplers.num_gpus, samplers.at_least),
            *rewards,
            *(trainers + evaluators if self.evaluation.watch.every else larger),
        ]

    def sampler_config(self) -> SamplerConfig:
        """What the samplers need to know; preview grids come with the first batch of each nth and the last update."""
        updates = {*range(0, self.training.updates, self.tracking.preview_every), self.training.updates - 1}
        return SamplerConfig(
            seed=self.run.seed,
            model=self.model,
            sampling=self.called_sampling,
            plan=self.plan,
            mix=self.rewards,
            samplers=self.samplers,
            backward=self.training.backward,
            max_policy_lag=self.training.max_policy_lag,
            anchor=self.training.anchor,
            preview_prompts=tuple(self.tracking.preview_prompts),
            preview_inputs=self.preview_inputs(),
            preview_rows=frozenset(
                update * self.training.batch_size for update in updates if self.tracking.preview_prompts
            ),
        )

    @property
    def looks_at(self) -> list[str]:
        """What a look during training measures: the evaluators', and what is measured of images."""
        names = [evaluator.key for evaluator in self.evaluation.evaluators]
        if made_if_known(self.model.reference) != "image" or self.evaluation.watch.num_prompts < 2:
            return names
        return [*names, *(name for name in OF_IMAGES if name not in names)]

    def held_out(self, evaluators: Mapping[str, Any]) -> HeldOut | None:
        """What samplers look at during training; None: nothing.

        Args:
            evaluators: their actors by key.
        """
        evaluation, watch = self.evaluation, self.evaluation.watch
        if not watch.every:
            return None
        heldout = read_heldout(evaluation.prompts, evaluation.column, inputs=self.columns)
        asked = draw_questions(heldout, evaluation.num_prompts, self.run.seed).to_pylist()[: watch.num_prompts]
        return HeldOut(
            prompts=tuple(row["prompt"] for row in asked),
            indices=tuple(row["index"] for row in asked),
            inputs=tuple(from_column([row[COLUMN] for row in asked])) if self.columns else (),
            rows=frozenset(u * self.training.batch_size for u in range(0, self.training.updates, watch.every)),
            evaluators=evaluators,
        )

"""The settings of one alignment run, composed of what each room declares, and the checks across rooms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from sdo_ray.cluster import Demand
from sdo_ray.config.calls import (
    asks_others,
    check_estimator,
    check_inputs,
    check_model,
    made_if_known,
    samples_per_prompt,
)
from sdo_ray.config.rewards import check_learned, check_names, check_rewards
from sdo_ray.config.run import LongRunSettings, has_begun
from sdo_ray.evaluation.settings import EvaluationSettings
from sdo_ray.models.load import pipeline_class
from sdo_ray.models.reference import parse
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.tokens import tokenizers_of, what_is_cut
from sdo_ray.promotion.held_out import check_held_out_rules
from sdo_ray.prompts.heldout import check_apart, draw_questions, read_heldout
from sdo_ray.prompts.inputs import COLUMN, Row, from_column, read_inputs, with_texts
from sdo_ray.prompts.read import read_prompts
from sdo_ray.rollout.held_out import OF_IMAGES
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings
from sdo_ray.rollout.records import HeldOut, SamplerConfig
from sdo_ray.rollout.reward_settings import MixSettings
from sdo_ray.rollout.settings import LearningSamplerSettings, PlanSettings, PromptSettings, SamplingSettings
from sdo_ray.settings import Problem, Problems, Settings, SettingsError, under
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
        return read_inputs(self.prompts.train, self.prompts.column, self.columns)

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
        rewards = [
            Demand(f"reward {term.key}", term.count, term.num_cpus, term.num_gpus) for term in self.rewards.terms
        ]
        evaluators = [Demand(f"evaluator {j.key}", j.count, j.num_cpus, j.num_gpus) for j in self.evaluation.evaluators]
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


def check_align(settings: AlignSettings) -> None:
    """Refuse what cannot work, before anything starts; all problems at once.

    Raises:
        SettingsError: with one line a problem.
    """
    with Problems() as problems:
        parts = (
            _check_model,
            _check_registered,
            _check_plan,
            _check_backward,
            _check_anchor,
            _check_rewards,
            _check_prompts,
            _check_inputs,
        )
        for check_part in (*parts, _check_batches):
            with problems.of():
                check_part(settings)


def said_of_prompts(settings: AlignSettings) -> list[str]:
    """What the model does not read of its prompts, a line a setting.

    Raises:
        SettingsError: the model's tokenizers cannot be read.
    """
    options = settings.sampling.options
    given: dict[str, list[str]] = {
        **prompts_of(settings),
        "tracking.preview_prompts": settings.tracking.preview_prompts,
        "sampling.options.negative_prompt": [v for v in [options.get("negative_prompt")] if isinstance(v, str)],
    }
    with under("model"):
        tokenizers = tokenizers_of(settings.model.reference)
    return [f"{setting}: {said}" for setting, prompts in given.items() if (said := what_is_cut(tokenizers, prompts))]


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


def _check_model(settings: AlignSettings) -> None:
    check_model(settings.model.reference, settings.sampling)


def _check_registered(settings: AlignSettings) -> None:
    if settings.tracking.register_as is not None and parse(settings.model.reference).pipeline is not None:
        got = f"got {settings.tracking.register_as!r}, but who takes it from the registry has no pipeline of your own"
        raise SettingsError(Problem("tracking.register_as", got, fix="remove it"))


def _readable_base(settings: AlignSettings) -> str | None:
    try:
        _check_model(settings)
    except SettingsError:
        return None  # said by the check of the model
    return settings.model.reference


def _check_plan(settings: AlignSettings) -> None:
    cache = settings.sampling.cache
    if settings.plan.is_policy_gradient and cache is not None and cache.name != "taylor":
        got = f"got {cache.name!r} with plan {settings.plan.name!r}, whose rows part on their way"
        fix = "choose 'taylor', which knows all rows at every step, or remove it"
        raise SettingsError(Problem("sampling.cache", got, fix=fix))
    check_estimator(settings.plan, settings.sampling, "plan", _readable_base(settings))
    beyond = settings.model.kind.beyond_denoisers(settings.model.kind_settings)
    if beyond and asks_others(settings.plan, settings.sampling.num_inference_steps):
        raise SettingsError(
            Problem(
                "plan.options",
                f"loss, kl or output_kl make kept denoiser calls again with other weights, but model."
                f"{settings.model.train}.{beyond} trains more than the denoisers",
                fix="leave these options out, or train the denoisers alone",
            )
        )


def _check_backward(settings: AlignSettings) -> None:
    if settings.training.backward == "sampler":
        if settings.trainers.zero_stage == 3:
            raise SettingsError(
                Problem(
                    "trainers.zero_stage",
                    "got 3, which shards the denoiser's weights, but with training.backward = sampler the trainers "
                    "have none",
                    fix="choose 2, or training.backward = trainer",
                )
            )
        return
    if beyond := settings.model.kind.beyond_denoisers(settings.model.kind_settings):
        raise SettingsError(
            Problem(
                "training.backward",
                f"got 'trainer', but model.{settings.model.train}.{beyond} trains more than the denoisers, and its "
                "gradient comes from the sampling as a whole",
                fix="choose 'sampler', or train them alone",
            )
        )
    try:
        plans = check_estimator(settings.plan, settings.sampling, "plan", _readable_base(settings))
    except SettingsError:
        return  # said by the check of the plan
    if not all(plan.is_of_single_calls for plan in plans):
        raise SettingsError(
            Problem(
                "training.backward",
                f"got 'trainer', but plan {settings.plan.name!r} with these options couples steps or re-noises, which "
                "takes the sampler's graph",
                fix="choose 'sampler', or a plan of single steps such as sdo",
            )
        )


def _check_anchor(settings: AlignSettings) -> None:
    if not settings.training.anchor:
        return
    setting, got = "training.anchor", f"got {settings.training.anchor:g}"
    if settings.plan.is_policy_gradient:
        got = f"{got} with plan {settings.plan.name!r}, which has one of its own"
        raise SettingsError(Problem(setting, got, fix="set plan.options.output_kl in its place"))
    if beyond := settings.model.kind.beyond_denoisers(settings.model.kind_settings):
        got = (
            f"{got}, but model.{settings.model.train}.{beyond} trains more than the denoisers, and only these are asked"
        )
        raise SettingsError(Problem(setting, got, fix="set 0, or train the denoisers alone"))
    try:
        plans = check_estimator(settings.plan, settings.sampling, "plan", _readable_base(settings))
    except SettingsError:
        return  # said by the check of the plan
    if not all(plan.is_of_single_calls and plan.guidance == "both" for plan in plans):
        got = (
            f"{got}, but plan {settings.plan.name!r} with these options couples steps, re-noises, or learns by one half"
        )
        fix = "set 0, or choose a plan of single steps such as sdo, with guidance: both"
        raise SettingsError(Problem(setting, f"{got} of guidance, and kept steps could not be made again", fix=fix))


def _check_rewards(settings: AlignSettings) -> None:
    terms, evaluators = settings.rewards.terms, settings.evaluation.evaluators
    named = {evaluator.name for evaluator in evaluators}
    made = made_if_known(settings.model.reference)
    with Problems() as problems:
        with problems.of("rewards.terms"):
            check_rewards(terms, made=made)
        with problems.of("evaluation.evaluators"):
            check_rewards(evaluators, made=made)
        if not problems:
            with problems.of("rewards.terms"):
                check_learned(terms, settings.plan.is_policy_gradient)
        with problems.of("evaluation.evaluators"):
            check_names(evaluators)
        with problems.of("evaluation.watch.rules"):
            check_held_out_rules(settings.evaluation.watch.rules, settings.looks_at)
        for term in terms:
            if term.weight and term.name in named:
                problems.add(
                    Problem(
                        "evaluation.evaluators",
                        f"{term.name!r} is learned from, with weight {term.weight:g}, and so no evaluator; the "
                        "comparison shows its scores anyway",
                        fix="name another reward",
                    )
                )


def _check_prompts(settings: AlignSettings) -> None:
    evaluation = settings.evaluation
    with Problems() as problems:
        with problems.of("prompts.train"):
            train = read_prompts(settings.prompts.train, settings.prompts.column)
        with problems.of("evaluation.prompts"):
            heldout = read_heldout(evaluation.prompts, evaluation.column)
        if not problems:
            with problems.of("evaluation.num_prompts"):
                draw_questions(heldout, evaluation.num_prompts, settings.run.seed)
            # What an earlier version began with such prompts goes on.
            if not has_begun(settings):
                with problems.of("evaluation.prompts"):
                    check_apart(train, heldout)


def _rows_of(samplers: LearningSamplerSettings) -> str:
    """Rows of a contribution, in the settings' words."""
    times = f" x samplers.accumulate = {samplers.accumulate}" if samplers.accumulate > 1 else ""
    return f"samplers.batch_size = {samplers.batch_size}{times}"


def _check_inputs(settings: AlignSettings) -> None:
    given, asked = settings.prompts, settings.evaluation
    with Problems() as problems:
        if (base := _readable_base(settings)) is not None:
            with problems.of("prompts.inputs"):
                check_inputs(pipeline_class(base), given.inputs, settings.sampling)
        size = settings.samplers.batch_size
        with problems.of("prompts.train"):
            read_inputs(given.train, given.column, settings.columns, batch_size=size)
        with problems.of("evaluation.prompts"):
            read_inputs(asked.prompts, asked.column, settings.columns, batch_size=size)
        if not problems:
            with problems.of():
                settings.preview_inputs()


def _check_batches(settings: AlignSettings) -> None:
    batch, part, trainers = (
        settings.training.batch_size,
        settings.samplers.rows_per_contribution,
        settings.trainers.count,
    )
    if batch % part:
        got = f"got {batch}, which {_rows_of(settings.samplers)} does not divide"
        raise SettingsError(Problem("training.batch_size", got, fix=f"choose a multiple of {part}"))
    if (settings.samplers.at_least or 1) > settings.samplers.count:
        got = f"got {settings.samplers.at_least}, of samplers.count = {settings.samplers.count}"
        raise SettingsError(Problem("samplers.at_least", got, fix="lower it, or leave it out"))
    if settings.contributions_per_update % trainers:
        raise SettingsError(
            Problem(
                "trainers.count",
                f"got {trainers}, which does not divide the {settings.contributions_per_update} contributions of an "
                f"update (training.batch_size {batch} / {_rows_of(settings.samplers)}), of which each trainer takes as "
                "many",
                fix="change one of the three",
            )
        )

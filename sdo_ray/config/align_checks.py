"""The checks of an alignment run across rooms, before anything starts."""

from __future__ import annotations

from sdo_ray.config.align import AlignSettings
from sdo_ray.config.calls import (
    asks_others,
    check_estimator,
    check_inputs,
    check_model,
    made_if_known,
)
from sdo_ray.config.encoders import check_rounded, check_trained_texts
from sdo_ray.config.rewards import check_learned, check_names, check_rewards
from sdo_ray.config.run import has_begun
from sdo_ray.config.trainers import check_backward, check_trainers_type
from sdo_ray.models.load import pipeline_class
from sdo_ray.models.reference import parse
from sdo_ray.promotion.held_out import check_held_out_rules
from sdo_ray.prompts.heldout import check_apart, draw_questions, read_heldout
from sdo_ray.prompts.inputs import check_weights, read_inputs
from sdo_ray.prompts.read import read_prompts
from sdo_ray.rollout.settings import LearningSamplerSettings
from sdo_ray.settings import Problem, Problems, SettingsError


def check_align(settings: AlignSettings) -> None:
    """Refuse what cannot work, before anything starts; all problems at once.

    Raises:
        SettingsError: with one line a problem.
    """
    with Problems() as problems:
        parts = (
            _check_model,
            _check_texts,
            _check_registered,
            _check_plan,
            _check_trainers_type,
            _check_backward,
            _check_anchor,
            _check_rewards,
            _check_prompts,
            _check_inputs,
        )
        for check_part in (*parts, _check_batches):
            with problems.of():
                check_part(settings)


def _check_model(settings: AlignSettings) -> None:
    check_model(settings.model.reference, settings.sampling, settings.model.dtypes)
    check_rounded(settings.model)


def _check_texts(settings: AlignSettings) -> None:
    check_trained_texts(settings.model, settings.samplers, settings.sampling, _readable_base(settings))


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


def _check_trainers_type(settings: AlignSettings) -> None:
    check_trainers_type(settings.trainers, settings.training, settings.model)


def _check_backward(settings: AlignSettings) -> None:
    check_backward(settings, _readable_base(settings))


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
            rows = read_inputs(given.train, given.column, settings.learned_columns, batch_size=size)
            check_weights(rows, [term.weigh_by for term in settings.rewards.terms])
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

"""The settings of one run that optimises rows, and the checks across rooms."""

from __future__ import annotations

import inspect

from pydantic import Field

from sdo_ray.backprop import BackpropPlan
from sdo_ray.cluster import Demand
from sdo_ray.config.calls import check_estimator, check_inputs, check_model, made_if_known
from sdo_ray.config.encoders import check_texts
from sdo_ray.config.rewards import check_learned, check_rewards, refuse_row_weights, reward_demands
from sdo_ray.config.run import RunSettings
from sdo_ray.input_optimization.records import OptimizerConfig
from sdo_ray.input_optimization.rows import Texts, read_row_inputs, read_rows
from sdo_ray.input_optimization.settings import FrozenModelSettings, OptimizationSettings, RowSettings, TextMixSettings
from sdo_ray.input_optimization.variables import LEAST_GUIDANCE
from sdo_ray.policy_gradient import check_policy_plan
from sdo_ray.prompts.inputs import Row
from sdo_ray.rollout.settings import PlanSettings, SamplerSettings, SamplingSettings
from sdo_ray.settings import Problem, Problems, Settings, SettingsError, under
from sdo_ray.tracking.settings import ExperimentSettings


class OptimizeSettings(Settings):
    """Everything about one run that optimises rows while the model is frozen."""

    run: RunSettings
    model: FrozenModelSettings
    rows: RowSettings
    optimization: OptimizationSettings
    rewards: TextMixSettings
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    plan: PlanSettings = Field(default_factory=PlanSettings)
    samplers: SamplerSettings = Field(default_factory=SamplerSettings)
    tracking: ExperimentSettings = Field(default_factory=ExperimentSettings)

    def texts(self) -> Texts:
        """The rows' prompts and what else the rewards are given."""
        with under("rows"):
            return read_rows(self.rows, [term.text for term in self.rewards.terms if term.text is not None])

    def inputs(self) -> list[Row]:
        """What the pipeline is given besides each row's prompt; empty if no more."""
        with under("rows"):
            return read_row_inputs(self.rows)

    def demands(self) -> list[Demand]:
        """What runs at the same time."""
        return [
            Demand("samplers", self.samplers.count, self.samplers.num_cpus, self.samplers.num_gpus),
            *reward_demands(self.rewards.terms),
        ]

    def optimizer_config(self) -> OptimizerConfig:
        """What the optimizers need to know."""
        return OptimizerConfig(
            seed=self.run.seed,
            model=self.model,
            sampling=self.sampling.with_example_of(self.inputs()),
            plan=self.plan,
            rewards=self.rewards,
            optimization=self.optimization,
            samplers=self.samplers,
            column=self.rows.column,
        )


def check_optimize(settings: OptimizeSettings) -> None:
    """Refuse what cannot work, before anything starts; all problems at once.

    Raises:
        SettingsError: with one line a problem.
    """
    with Problems() as problems:
        for check_part in (_check_model, _check_inputs, _check_variable, _check_plan, _check_rewards):
            with problems.of():
                check_part(settings)


def _check_model(settings: OptimizeSettings) -> None:
    kind = check_model(settings.model.base, settings.sampling, settings.model.dtypes)
    variable = settings.optimization.variable
    check_texts(settings.samplers, settings.sampling, settings.model.base)
    if variable == "latents" and "latents" not in inspect.signature(kind.__call__).parameters:
        got = f"{kind.__name__} takes no latents"
        raise SettingsError(Problem("optimization.variable", got, fix="choose another variable"))
    if variable == "prompt_embeds" and not hasattr(kind, "encode_prompt"):
        got = f"{kind.__name__} has no encode_prompt to take embeddings from"
        raise SettingsError(Problem("optimization.variable", got, fix="choose another variable"))
    for cheap in ("cache", "fast_copy"):
        if getattr(settings.sampling, cheap) is not None:
            got = "given, but images are what this job makes, and all their steps count"
            raise SettingsError(Problem(f"sampling.{cheap}", got, fix="remove it"))
    with under("rows.inputs"):
        check_inputs(kind, settings.rows.inputs, settings.sampling)
    if variable in {**settings.sampling.options, **settings.rows.inputs}:
        raise SettingsError(Problem("sampling.options", f"{variable} is what is optimised", fix="remove it here"))


def _check_inputs(settings: OptimizeSettings) -> None:
    with under("rows"):
        read_row_inputs(settings.rows, settings.samplers.batch_size)


def _check_variable(settings: OptimizeSettings) -> None:
    optimization = settings.optimization
    with Problems() as problems:
        if optimization.variable == "guidance_scale":
            if settings.samplers.batch_size != 1:
                got = f"got {settings.samplers.batch_size}, but pipelines take one guidance scale a call"
                problems.add(Problem("samplers.batch_size", got, fix="choose 1 (and more samplers.count)"))
            if (scale := settings.sampling.guidance_scale) is None:
                got = f"got {optimization.variable!r}, and sampling.guidance_scale is null: the call takes none"
                problems.add(Problem("optimization.variable", got, fix="choose latents or prompt_embeds"))
            elif scale < LEAST_GUIDANCE:
                got = f"got {scale:g}, where guidance is off and has no gradient"
                problems.add(Problem("sampling.guidance_scale", got, fix=f"start at {LEAST_GUIDANCE} or more"))
            if optimization.keep_norm:
                got = "the guidance scale is one number, which would then never change"
                problems.add(Problem("optimization.keep_norm", got, fix="choose false"))
        if optimization.keep_norm and (optimization.max_change or 0) >= 2:
            problems.add(
                Problem(
                    "optimization.max_change",
                    f"got {optimization.max_change:g}; with keep_norm nothing on the sphere is farther than 2",
                    fix="choose less, or leave it out",
                )
            )


def _check_plan(settings: OptimizeSettings) -> None:
    try:
        _check_model(settings)
        base: str | None = settings.model.base
    except SettingsError:
        base = None  # said by the check of the model
    plans = check_estimator(settings.plan, settings.sampling, "plan", base)
    if settings.plan.is_policy_gradient:
        _check_comparison(settings)
    elif settings.optimization.variable == "latents" and not all(map(_reaches_latents, plans)):
        raise SettingsError(
            Problem(
                "plan.options",
                f"{settings.plan.name!r} with these keeps several steps that are not coupled, and the initial latents "
                "would get the first one's gradient only",
                fix="keep one (K: 1), or use full",
            )
        )


def _check_comparison(settings: OptimizeSettings) -> None:
    """Refuse what rewards without a gradient cannot teach."""
    name, variable = settings.plan.name, settings.optimization.variable
    plan, *_ = check_policy_plan(name, settings.sampling.num_inference_steps, settings.plan.options, draws=1)
    with Problems() as problems:
        if variable != "prompt_embeds":
            got = f"got {variable!r}, which acts on an image by more than the outputs that {name!r} compares"
            fix = "choose that, or a plan that follows the rewards' gradients"
            problems.add(Problem("optimization.variable", got, "legal: prompt_embeds", fix))
        if plan.asks_others:
            got = f"{name!r} with these options learns by other policies' weights, and here the model is frozen"
            problems.add(Problem("plan", got, fix="leave loss, kl and output_kl out; nft and awm altogether"))
        if plan.seeds > 1:
            got = f"{name!r} with these options has {plan.seeds} initial noises, and a row has one image of one noise"
            problems.add(Problem("plan", got, fix="choose group with one of `seeds`, or branch-grpo"))
        if settings.samplers.batch_size != 1:
            got = f"got {settings.samplers.batch_size}, but with {name!r} a batch is the {plan.samples} images of a row"
            problems.add(Problem("samplers.batch_size", got, fix="choose 1 (and more samplers.count)"))


def _reaches_latents(plan: BackpropPlan) -> bool:
    """Whether every kept step's gradient goes on to the initial latents: one alone, or coupled to those before."""
    return all(step.coupling == 1 for step in list(plan.steps.values())[1:])


def _check_rewards(settings: OptimizeSettings) -> None:
    texts, terms = settings.texts(), settings.rewards.terms
    with under("rewards.terms"):
        given = [texts[term.text or settings.rows.column] for term in terms]
        check_rewards(terms, given, made_if_known(settings.model.base))
        check_learned(terms, black_boxes=settings.plan.is_policy_gradient)
        refuse_row_weights(terms)

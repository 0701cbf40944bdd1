"""One tiny batch on the driver's CPU, through all that a batch goes through, before a cluster is paid for.

    as asked    the pipeline is called with the run's own settings, and left at its first denoiser call
    tiny        two prompts, few steps, a small image: plan, sampling, rewards, backward pass, contribution,
                a trainer's step, evaluators; whether what is trained changes an image, and the same one once exported

The classes are the model's own; a large one's have few layers and random weights. What fails is a problem of a setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import torch

from sdo_ray.config.align import AlignSettings
from sdo_ray.dry_batch.calls import blamed, check_call, latents, stand_in, tiny
from sdo_ray.dry_batch.effect import check_effect
from sdo_ray.dry_batch.problems import OFF, problem
from sdo_ray.dry_batch.process import Died, apart
from sdo_ray.dry_batch.rewards import DryRewards
from sdo_ray.models.checkpointing import checkpoint_blocks
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import attach_working_copy, initial_policy, load_model
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.small import is_large
from sdo_ray.prompts.read import read_prompts
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings, choose_kept_graph
from sdo_ray.rollout.preparation import prepare
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.sampling import draw, noise
from sdo_ray.settings import Problem, SettingsError, under
from sdo_ray.training.modules import Denoisers, Policy

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TIMEOUT = 600.0
"""Seconds for each part of it."""

Say = Callable[[str], None]
T = TypeVar("T")


def check_by_dry_batch(settings: AlignSettings) -> None:
    """Refuse settings with which a batch fails, by trying one in a process of its own.

    Args:
        settings: that `check_align` finds nothing wrong with.

    Raises:
        SettingsError: what failed, by the setting that it depends on where that can be told.
    """
    if not settings.training.dry_batch:
        return
    print("trying a tiny batch", flush=True)
    try:
        untried = apart(partial(dry_batch, settings), TIMEOUT)
    except Died as error:
        raise SettingsError(
            Problem(error.doing, f"a first tiny batch ended: {error.how}", fix=f"change it, {OFF}")
        ) from None
    if untried:
        print(f"no batch was tried beforehand: {untried}", flush=True)


def dry_batch(settings: AlignSettings, say: Say = lambda _: None) -> str | None:
    """The batch itself.

    Args:
        settings: of the run.
        say: given the setting whose part comes next.

    Returns:
        Why none could be tried, where that is not for anything in the settings; else None.

    Raises:
        SettingsError: as `check_by_dry_batch`.
    """
    say("model.base")
    base = settings.model.reference
    with TemporaryDirectory(prefix="sdo-dry-batch-") as directory:
        stand: dict[str, str | None] = {}
        if is_large(base):
            try:
                stand = {"base": stand_in(base, Path(directory)), "revision": None, "variant": None}
            except SettingsError as error:
                raise error.under("model") from None
            except ValueError as error:
                return f"{base!r} has no small stand-in: {error}"
        _try(settings, settings.model.model_copy(update=stand), say)
    return None


def _try(settings: AlignSettings, model: ModelSettings, say: Say) -> None:
    with under("model"):
        pipeline = load_model(model)
    trained, weights = attach_working_copy(pipeline.components, model), initial_policy(model, seed=0)
    prompts, inputs = read_prompts(settings.prompts.train, settings.prompts.column), settings.inputs()
    sampling = settings.called_sampling
    count = min(2, settings.samplers.batch_size)  # some autoencoders take one video alone
    device = "cuda" if settings.samplers.num_gpus else "cpu"  # where the run's samplers are; here all is on the CPU
    if model.checkpoints_blocks(device):
        checkpoint_blocks(pipeline.components.values())
    say("sampling")
    runner = prepare(pipeline, sampling, settings.samplers.model_copy(update={"compile": False}))
    check_call(pipeline, sampling, _some(prompts, settings.samplers.batch_size))
    rewards = DryRewards(settings, say)

    def contribution(how: LearnedSamplingSettings) -> Contribution:
        return compute_contribution(
            pipeline,
            PromptBatch(0, tuple(range(count)), _some(prompts, count), _some(inputs, count) if inputs else ()),
            0,
            seed=settings.run.seed,
            sampling=how,
            plan=settings.plan,
            rewards=rewards,
            terms=[term.term for term in settings.rewards.terms],
            mixing=settings.rewards.mixing,
            backward=settings.training.backward,
            kept_graph=choose_kept_graph(
                pipeline, how, settings.plan, settings.samplers, settings.rewards.looks_at_some_frames
            ),
            runner=runner,
            others={"base": weights, "average": weights},
            anchor=settings.training.anchor,
        )

    small = tiny(pipeline, sampling, settings.plan, model.reference)
    try:
        made = contribution(small)
    except SettingsError:
        raise
    except Exception as error:
        if not rewards.asked:
            raise blamed(pipeline, error, small, contribution) from None
        raise SettingsError(problem("model", "the backward pass of a first tiny batch failed", error)) from None
    if rewards.flat and model.reference == settings.model.reference:
        got = "its gradient is exactly 0 on all images of a first tiny batch, so it would teach nothing"
        raise SettingsError(*(Problem(place, got, fix=f"change it, {OFF}") for place in rewards.flat))
    if not made.num_samples and model.reference == settings.model.reference:  # random weights may have made anything
        raise SettingsError(_nothing_counts(made, rewards.finite))
    say("training")
    try:
        here = settings.training.backward == "trainer"
        module = Denoisers(model, weights, settings.trainers.dtype) if here else Policy(weights)
        _train(module, made)
        set_parameters(trained, {name: parameter.detach() for name, parameter in module.named().items()})
    except Exception as error:
        raise SettingsError(problem("training", "a trainer's step of a first tiny batch failed", error)) from None
    say("model")
    is_stand_in = model.reference != settings.model.reference

    def drawn(pipeline: DiffusionPipeline) -> torch.Tensor:
        call = small.pipeline_call(_some(prompts, 1), _some(inputs, 1) if inputs else ())
        if is_stand_in:  # of random weights, whose decoder may make one colour of everything
            return latents(pipeline, call)
        return draw(pipeline, call, noise(settings.run.seed, [0])).float()

    check_effect(pipeline, trained, model, weights, drawn)


def _some(prompts: Sequence[T], count: int) -> tuple[T, ...]:
    """`count` prompts, repeated where there are fewer."""
    return tuple(prompts[i % len(prompts)] for i in range(count))


def _train(module: Policy | Denoisers, contribution: Contribution) -> None:
    """What a trainer does with a contribution that arrives, without a group."""
    [arrived] = Contribution.from_arrow(contribution.to_arrow())
    if arrived.num_samples:
        [term] = module.terms([arrived])
        optimizer = torch.optim.AdamW([parameter for parameter in module.parameters() if parameter.requires_grad])
        module(term).backward()
        optimizer.step()


def _nothing_counts(contribution: Contribution, finite: bool) -> Problem:
    if not finite:
        got = "what the model makes is not finite in a first tiny batch"
        fix = f"choose float32, or bfloat16 for float16, see that its weights are whole, {OFF}"
        return Problem("model.dtype", got, fix=fix)
    for key, scores in contribution.scores.items():
        if not all(score is not None and math.isfinite(score) for score in scores):
            got = f"reward {key!r} gives scores that are not finite, such as {scores[0]}"
            return Problem("rewards.terms", f"{got}, for every image of a first tiny batch", fix=f"change it, {OFF}")
    got = "the gradients of a first tiny batch are not finite"
    return Problem("model.dtype", got, fix=f"choose float32, or bfloat16 for float16, {OFF}")

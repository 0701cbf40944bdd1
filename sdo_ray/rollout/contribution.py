"""The mathematics of one sampler batch: sample, reward, and the adapter's gradient. No Ray in here.

sample_batch          phase A: prompts -> samples, and what the backward pass needs
  (the rewards are asked; other batches may be sampled meanwhile)
learn_from            phase B: scores and image gradients -> the contribution
compute_contribution  one after the other
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rewards.pulls import Memory
from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop import PlanError, StepRunner
from sdo_ray.backprop.pieces import counted_halvings
from sdo_ray.models.denoisers import find_denoisers, find_text_encoders
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.prompts.inputs import Prompts, weights_of
from sdo_ray.rollout.anchor import anchored
from sdo_ray.rollout.calls import ShippedCall
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.group_objective import ask_others, group_objective
from sdo_ray.rollout.groups import Groups, groups_of
from sdo_ray.rollout.numbers import DIVERGED
from sdo_ray.rollout.objective import (
    NOTHING_KNOWN,
    ImageGradients,
    RewardFunction,
    Scores,
    backpropagate,
    reward_objective,
)
from sdo_ray.rollout.other_policies import Weights, weights_in_place
from sdo_ray.rollout.records import Contribution, PromptBatch, Seconds
from sdo_ray.rollout.sampling import Trajectory, noise, plan_of, reward_seeds, sample
from sdo_ray.rollout.settings import Backward, KeptGraph, PlanSettings, SamplingSettings
from sdo_ray.seeds import generator

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

NO_OTHERS: Mapping[str, Weights] = {}


@dataclass(frozen=True, eq=False)
class SampledBatch:
    """A batch that waits for its rewards. How much memory it holds meanwhile is for `kept_graph` of `sample_batch`."""

    batch: PromptBatch
    policy_version: int
    """The version that sampled it, whose weights `learn_from` has to find in the pipeline, or newer ones where the plan
    corrects for that."""
    trajectory: Trajectory
    backward: Backward
    began: float
    """`time.monotonic()`; likewise the next."""
    sampled: float
    seed: int
    """The run's."""
    groups: Groups | None = None
    """How its samples are grouped; None: one sample a prompt."""
    anchor: float = 0.0
    """Weight of an anchor to the base model, see `sdo_ray.rollout.anchor`."""

    @property
    def prompts(self) -> Sequence[str]:
        """Of each sample."""
        prompts, inputs = self.batch.prompts, self.batch.inputs
        if self.groups is None:
            return Prompts(prompts, inputs)
        return Prompts(self.groups.each(prompts), self.groups.each(inputs))

    def reward_seeds(self, seed: int) -> list[int]:
        """Each sample's seed of what a reward draws for it."""
        rows = self.batch.rows
        return reward_seeds(seed, rows) if self.groups is None else self.groups.reward_seeds(seed, rows)


def sample_batch(
    pipeline: DiffusionPipeline,
    batch: PromptBatch,
    policy_version: int,
    *,
    seed: int,
    sampling: SamplingSettings,
    plan: PlanSettings,
    backward: Backward = "sampler",
    kept_graph: KeptGraph = "retain",
    differentiable: bool = True,
    runner: StepRunner | None = None,
    anchor: float = 0.0,
) -> SampledBatch:
    """Phase A: the batch's samples, `trajectory.seen` of which is for the rewards, and what `learn_from` needs.

    Row r's noise comes from the seed (run seed, r) and the batch's kept steps from (run seed, its first row), so the
    result depends on the policy and the batch alone. Another batch may be sampled before this one is learned from,
    with the same policy.

    Args:
        pipeline: in which only what is trained requires gradients, on any device.
        batch: what to sample.
        policy_version: the version in the pipeline.
        seed: the run's seed.
        sampling: how to call the pipeline.
        plan: the estimator.
        backward: where the denoiser's backward pass runs. With "trainer" the contribution holds the kept denoiser calls
            with the gradient at their outputs instead of the gradient of the parameters.
        kept_graph: see `sdo_ray.rollout.sampling.sample`; "recompute" where other policies' outputs are asked for.
        differentiable: whether a reward that is learned from has a gradient; for a policy-gradient estimator, which
            keeps no graph behind its kept steps where none has.
        runner: how steps without a graph are made; by default exactly.
        anchor: weight of an anchor to the base model, which takes a plan of single calls; see `sdo_ray.rollout.anchor`.

    Raises:
        TraceError: see `sdo_ray.backprop.differentiable_sample`.
        PlanError: see `plan_of` and `groups_of`; or the plan cannot have an anchor.
    """
    began = time.monotonic()
    draws = generator(seed, "plan", batch.rows[0])
    groups = groups_of(pipeline, sampling, plan, draws, batch.update) if plan.is_policy_gradient else None
    if groups is not None:
        call = sampling.pipeline_call(groups.each(batch.prompts), groups.each(batch.inputs))
        generators = groups.noise(seed, batch.rows)
        if groups.plan.forward:  # learns elsewhere than where the samples' gradient arrives
            differentiable = False
        steps, stochastic = groups.plan.backprop, groups.stochastic(seed, batch.rows, differentiable)
        if groups.plan.asks_others:
            kept_graph = "recompute"
    else:
        call, generators = sampling.pipeline_call(batch.prompts, batch.inputs), noise(seed, batch.rows)
        steps, stochastic = plan_of(pipeline, sampling, plan, draws), None
        if anchor:
            kept_graph = "recompute"
    trajectory = sample(
        pipeline,
        call,
        generators,
        steps,
        backward=backward,
        kept_graph=kept_graph,
        runner=runner,
        stochastic=stochastic,
    )
    if anchor and (not trajectory.calls or any(call.rows is not None for call in trajectory.calls)):
        legal = "a plan of single calls that learns by both halves of guidance, with denoisers alone trained"
        raise PlanError("anchor", trajectory.plan.describe(), legal, "use sdo, or leave the anchor out")
    return SampledBatch(batch, policy_version, trajectory, backward, began, time.monotonic(), seed, groups, anchor)


def learn_from(
    pipeline: DiffusionPipeline,
    waiting: SampledBatch,
    scores: Scores,
    gradients: ImageGradients,
    *,
    terms: Sequence[RewardTerm],
    mixing: Mixing,
    memory: Memory = NOTHING_KNOWN,
    version: int | None = None,
    others: Mapping[str, Weights] = NO_OTHERS,
) -> Contribution:
    """Phase B: take the mixed reward's gradient back to what is trained.

    Args:
        pipeline: with the policy that sampled the batch, or `version`.
        waiting: the batch; it can be learned from once.
        scores: the rewards' of its samples.
        gradients: likewise.
        terms: weights, caps and targets.
        mixing: see `rewards.mix`.
        memory: of the updates before.
        version: of the policy in the pipeline, for a plan that corrects for a newer one; by default the batch's.
        others: what is trained, by name: in the "base" model, where something is anchored to it; in an "average" of the
            policies, and the "newest" where the pipeline has another, for a forward-process method.

    Returns:
        The contribution. A sample with a reward or image gradient that is not finite is skipped; if a gradient further
        back is not finite, the whole batch is. Where that, or samples that are not finite, leave none that counts, it
        fails as `DIVERGED`.
    """
    rewarded = time.monotonic()
    terms = [_in_batch(term, waiting.prompts) for term in terms]
    batch, here, denoisers = waiting.batch, waiting.backward == "sampler", find_denoisers(pipeline)
    parameters = trained_parameters(denoisers | find_text_encoders(pipeline))
    with weights_in_place(denoisers, others.get("newest")):
        trajectory, asked, told = waiting.trajectory, None, dict[str, float]()
        if waiting.groups is None:
            objective = reward_objective(scores, gradients, terms, mixing, memory)
            if waiting.anchor:
                pull, told["anchor"] = anchored(trajectory, denoisers, others["base"], waiting.anchor, objective.valid)
                both = replace(objective.cotangents, outputs=pull.outputs)
                objective = replace(objective, cotangents=both)
        else:
            if waiting.groups.plan.asks_others:
                newer = version is not None and version != waiting.policy_version
                noise_again = waiting.groups.forward_noise(waiting.seed, batch.rows)
                trajectory, asked = ask_others(
                    trajectory, waiting.groups, denoisers, others, newer=newer, noise=noise_again
                )
            objective, told = group_objective(
                trajectory, waiting.groups, scores, gradients, terms, mixing, memory, asked
            )
        with counted_halvings() as halvings:
            found = backpropagate(trajectory, objective.cotangents, parameters, denoisers if here else None)
    gradient, calls = Gradient.none(), tuple[ShippedCall, ...]()
    if here:
        gradient = Gradient.of(found.parameters).cpu()
        finite = bool(gradient.vector.isfinite().all())
    else:
        calls = tuple(ShippedCall.of(*both) for both in zip(trajectory.calls, found.calls, strict=True))
        finite = all(call.is_finite() for call in trajectory.calls)
    valid, failure = objective.valid & finite, None
    if not valid.any():  # what was sampled may not be finite, and zero times that is no zero
        gradient, calls = Gradient.none(), ()
        failure = None if finite and bool(trajectory.samples.isfinite().all()) else DIVERGED
    return Contribution(
        update=batch.update,
        policy_version=waiting.policy_version,
        first_row=batch.rows[0],
        num_samples=int(valid.sum()),
        num_skipped=int((~valid).sum()),
        num_splits=halvings.count,
        scores={name: values.tolist() for name, values in scores.items()},
        mixed=objective.score[valid].tolist(),
        step_norms=found.norms,
        pulls=objective.pulls,
        cosines=objective.cosines,
        seconds=Seconds(waiting.sampled - waiting.began, rewarded - waiting.sampled, time.monotonic() - rewarded),
        gradient=gradient,
        calls=calls,
        groups=told,
        failure=failure,
    )


def _in_batch(term: RewardTerm, prompts: Sequence[str]) -> RewardTerm:
    """The term with its rows' weights."""
    return term if term.weigh_by is None else replace(term, shares=weights_of(prompts, term.weigh_by))


def compute_contribution(
    pipeline: DiffusionPipeline,
    batch: PromptBatch,
    policy_version: int,
    *,
    seed: int,
    sampling: SamplingSettings,
    plan: PlanSettings,
    rewards: RewardFunction,
    terms: Sequence[RewardTerm],
    mixing: Mixing,
    memory: Memory = NOTHING_KNOWN,
    backward: Backward = "sampler",
    kept_graph: KeptGraph = "retain",
    differentiable: bool = True,
    runner: StepRunner | None = None,
    others: Mapping[str, Weights] = NO_OTHERS,
    anchor: float = 0.0,
) -> Contribution:
    """Both phases, with the rewards asked between them; see `sample_batch` and `learn_from`.

    Args:
        rewards: computes the rewards.
    """
    waiting = sample_batch(
        pipeline,
        batch,
        policy_version,
        seed=seed,
        sampling=sampling,
        plan=plan,
        backward=backward,
        kept_graph=kept_graph,
        differentiable=differentiable,
        runner=runner,
        anchor=anchor,
    )
    scores, gradients = rewards(waiting.trajectory.seen, waiting.prompts, waiting.reward_seeds(seed))
    return learn_from(pipeline, waiting, scores, gradients, terms=terms, mixing=mixing, memory=memory, others=others)

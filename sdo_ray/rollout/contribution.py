"""The mathematics of one sampler batch: sample, reward, and the adapter's gradient. No Ray in here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from rewards.terms import RewardTerm
from sdo_ray.models.denoisers import find_denoisers, find_text_encoders
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.rollout.calls import ShippedCall
from sdo_ray.rollout.objective import RewardFunction, backpropagate, reward_objective
from sdo_ray.rollout.records import Contribution, PromptBatch, Seconds
from sdo_ray.rollout.sampling import noise, plan_of, reward_seeds, sample
from sdo_ray.rollout.settings import Backward, PlanSettings, SamplingSettings
from sdo_ray.seeds import generator

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


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
    normalize: bool,
    backward: Backward = "sampler",
) -> Contribution:
    """Sample a batch with the plan's graph, and take the mixed reward's gradient back to what is trained.

    Row r's noise comes from the seed (run seed, r) and the batch's kept steps from (run seed, its first row), so the
    result depends on the policy and the batch alone.

    Args:
        pipeline: in which only what is trained requires gradients, on any device.
        batch: what to sample.
        policy_version: the version in the pipeline.
        seed: the run's seed.
        sampling: how to call the pipeline.
        plan: the estimator.
        rewards: computes the rewards.
        terms: weights and caps.
        normalize: see `rewards.mix`.
        backward: where the denoiser's backward pass runs. With "trainer" the contribution holds the kept denoiser calls
            with the gradient at their outputs instead of the gradient of the parameters.

    Returns:
        The contribution. A sample with a reward or image gradient that is not finite is skipped; if a gradient further
        back is not finite, the whole batch is.
    """
    began = time.monotonic()
    parameters = trained_parameters(find_denoisers(pipeline) | find_text_encoders(pipeline))
    for parameter in parameters.values():
        parameter.grad = None
    steps = plan_of(pipeline, sampling, plan, generator(seed, "plan", batch.rows[0]))
    trajectory = sample(
        pipeline, sampling.pipeline_call(batch.prompts), noise(seed, batch.rows), steps, backward=backward
    )
    sampled = time.monotonic()
    scores, gradients = rewards(trajectory.seen, batch.prompts, reward_seeds(seed, batch.rows))
    objective = reward_objective(scores, gradients, terms, normalize)
    rewarded = time.monotonic()
    step_norms = backpropagate(trajectory, objective.cotangents)
    calls = [ShippedCall.of(call) for call in trajectory.calls]
    gradient = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in parameters.items()
        if backward == "sampler"
    }
    valid = objective.valid
    everything = [*gradient.values(), *(g for call in calls for g in call.gradients)]
    if not all(tensor.isfinite().all() for tensor in everything):
        for tensor in everything:
            tensor.zero_()
        valid = torch.zeros_like(valid)
    return Contribution(
        update=batch.update,
        policy_version=policy_version,
        first_row=batch.rows[0],
        num_samples=int(valid.sum()),
        num_skipped=int((~valid).sum()),
        scores={name: values.tolist() for name, values in scores.items()},
        mixed=objective.score[valid].tolist(),
        step_norms=step_norms,
        seconds=Seconds(sampled - began, rewarded - sampled, time.monotonic() - rewarded),
        gradient={name: tensor.detach().float().cpu() for name, tensor in gradient.items()},
        calls=tuple(calls),
    )

"""The mathematics of one sampler batch: sample, reward, and the adapter's gradient. No Ray in here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from rewards.mix import mix
from rewards.terms import RewardTerm
from sdo_ray.backprop import GradientRecord, KeptCall, differentiable_sample, sampler_plan
from sdo_ray.models.denoisers import find_denoisers, find_text_encoders
from sdo_ray.models.load import autocast
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.rollout.calls import ShippedCall
from sdo_ray.rollout.records import Contribution, PromptBatch, Seconds
from sdo_ray.rollout.settings import Backward, PlanSettings, SamplingSettings
from sdo_ray.seeds import generator

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Scores = dict[str, torch.Tensor]
"""Reward name -> scores [B], float32."""
ImageGradients = Mapping[str, torch.Tensor | None]
"""Reward name -> d score_b / d image_b [B,3,H,W], or None for a reward that has no gradient."""
RewardFunction = Callable[[torch.Tensor, Sequence[str]], tuple[Scores, ImageGradients]]
"""Images [B,3,H,W] float32 in [0,1] on the CPU, and prompts -> scores and gradients of every reward."""


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
        normalize: see `rewards.mix.mix`.
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
    draws = generator(seed, "plan", batch.rows[0])
    steps = sampler_plan(pipeline.scheduler, sampling.num_inference_steps, plan.name, generator=draws, **plan.options)
    record, kept = GradientRecord(), list[KeptCall]()
    with autocast(pipeline):
        images = differentiable_sample(
            pipeline,
            steps,
            output_hook=record.watch,
            elsewhere=kept if backward == "trainer" else None,
            generator=[generator(seed, "noise", row) for row in batch.rows],
            **sampling.pipeline_call(batch.prompts),
        )
    sampled = time.monotonic()
    scores, gradients = rewards(images.detach().float().cpu(), batch.prompts)
    mixed = mix(scores, gradients, terms, normalize)
    rewarded = time.monotonic()
    images.backward(mixed.gradient.to(images.device, images.dtype))
    calls = [ShippedCall.of(call) for call in kept]
    gradient = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in parameters.items()
        if backward == "sampler"
    }
    valid = mixed.valid
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
        mixed=mixed.score[valid].tolist(),
        step_norms=dict(record.norms),
        seconds=Seconds(sampled - began, rewarded - sampled, time.monotonic() - rewarded),
        gradient={name: tensor.detach().float().cpu() for name, tensor in gradient.items()},
        calls=tuple(calls),
    )

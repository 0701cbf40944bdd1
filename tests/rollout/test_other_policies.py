"""Kept steps by other weights: against sampling with those weights, where the kept step is the first."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop import surrogate
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.parameters import trained_parameters, trained_values
from sdo_ray.policy_gradient import LOSSES, Drift, gaussian_kl, step_advantages
from sdo_ray.rollout.contribution import learn_from, sample_batch
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.other_policies import other_outputs, weights_in_place
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.settings import Backward, PlanSettings
from tests.rollout.test_groups import BLACK, BOTH, SAMPLING, Judge, largest, pipeline

__all__ = ["pipeline"]

BATCH = PromptBatch(3, (0, 1), ("a", "b"))
FIRST = {"children": 4, "first": 0, "last": 0}


def moved(pipeline: Any, by: float = 0.3) -> dict[str, torch.Tensor]:
    own = trained_values(find_denoisers(pipeline))
    return {name: w + by * torch.randn(w.shape, generator=torch.Generator().manual_seed(1)) for name, w in own.items()}


def sampled(
    pipeline: Any, options: dict[str, Any], backward: Backward = "sampler", differentiable: bool = False
) -> Any:
    plan = PlanSettings(name="group", options=FIRST | options)
    return sample_batch(
        pipeline, BATCH, 0, seed=5, sampling=SAMPLING, plan=plan, differentiable=differentiable, backward=backward
    )


def learned(
    pipeline: Any, waiting: Any, version: int = 0, terms: list[RewardTerm] = BLACK, **changes: Any
) -> Contribution:
    judge = Judge(with_gradient=terms is BOTH)
    scores, gradients = judge(waiting.trajectory.seen, waiting.prompts, waiting.reward_seeds(5))
    return learn_from(pipeline, waiting, scores, gradients, terms=terms, mixing=Mixing(), version=version, **changes)


@contextmanager
def newer(pipeline: Any) -> Iterator[None]:
    denoisers = find_denoisers(pipeline)
    with weights_in_place(denoisers, moved(pipeline)):
        yield


def close(a: Contribution, b: dict[str, torch.Tensor]) -> None:
    for name, g in b.items():
        torch.testing.assert_close(a.gradient[name], g, rtol=2e-3, atol=1e-4 * largest(a))


def test_the_outputs_are_those_of_sampling_with_these_weights(pipeline: Any) -> None:
    waiting = sampled(pipeline, {"loss": "grpo"})
    base = moved(pipeline, 0.6)
    with newer(pipeline):
        others = other_outputs(waiting.trajectory, find_denoisers(pipeline), newer=True, weights={"base": base})
        new = sampled(pipeline, {}).trajectory.outputs[0].o.detach()
    with weights_in_place(find_denoisers(pipeline), base):
        of_base = sampled(pipeline, {}).trajectory.outputs[0].o.detach()
    old = sampled(pipeline, {}).trajectory.outputs[0].o.detach()
    assert (new - old).abs().max() > 0.01
    torch.testing.assert_close(others.sampled[0], old)
    torch.testing.assert_close(others.newest[0], new, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(others.others["base"][0], of_base, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", ["grpo", "dppo"])
def test_with_the_policy_that_sampled_it_is_reinforce(pipeline: Any, loss: str) -> None:
    plain = learned(pipeline, sampled(pipeline, {}))
    made = learned(pipeline, sampled(pipeline, {"loss": loss, "clip": 1e-5}))
    close(made, dict(plain.gradient))
    assert made.groups["log_ratio"] == 0
    assert made.groups["masked" if loss == "dppo" else "clipped"] == 0


@pytest.mark.parametrize("backward", ["sampler", "trainer"])
def test_with_a_newer_policy_the_gradient_is_that_of_the_loss_at_its_weights(pipeline: Any, backward: Backward) -> None:
    waiting = sampled(pipeline, {"loss": "grpo"}, backward)
    old = waiting.trajectory.outputs[0].o.detach()
    with newer(pipeline):
        made = learned(pipeline, waiting, version=2)
        new = sampled(pipeline, {"first": 0})
        parameters = trained_parameters(find_denoisers(pipeline))
        stochastic, transition = waiting.trajectory.stochastic, waiting.groups.transitions[0]
        [score] = Judge()(waiting.trajectory.seen, [], [])[0].values()
        a = step_advantages(waiting.groups.plan, [score], [2.0])[0]
        drift = Drift.of(transition, stochastic.noise[0], new.trajectory.outputs[0].o, old)
        objective = -LOSSES["grpo"](drift, a.float(), None).sum()
        by_hand = dict(zip(parameters, torch.autograd.grad(objective, list(parameters.values())), strict=True))
        if backward == "trainer":
            made = taken_back(pipeline, made)
    assert drift.log_ratio.detach().abs().max() > 1e-3
    assert made.groups["log_ratio"] == pytest.approx(drift.log_ratio.detach().abs().mean().item(), rel=1e-2)
    close(made, by_hand)


def taken_back(pipeline: Any, made: Contribution) -> Contribution:
    """As the trainers do it."""
    denoisers = find_denoisers(pipeline)
    parameters = trained_parameters(denoisers)
    total = sum(surrogate(denoisers[c.denoiser], c.args, c.kwargs, c.gradients) for c in made.calls)
    found = torch.autograd.grad(total, list(parameters.values()))
    return replace(made, gradient=Gradient.of(dict(zip(parameters, found, strict=True))))


def test_at_the_base_model_the_anchor_is_nothing_and_elsewhere_it_is_its_gradient(pipeline: Any) -> None:
    at_base = trained_values(find_denoisers(pipeline))
    base = {name: w.clone() for name, w in at_base.items()}
    plain = learned(pipeline, sampled(pipeline, {}))
    made = learned(pipeline, sampled(pipeline, {"kl": 50.0}), others={"base": base})
    close(made, dict(plain.gradient))
    assert made.groups["kl"] == pytest.approx(0.0, abs=1e-9)
    with newer(pipeline):
        waiting = sampled(pipeline, {"kl": 50.0})
        anchored = learned(pipeline, waiting, others={"base": base})
        free = learned(pipeline, sampled(pipeline, {}))
        with weights_in_place(find_denoisers(pipeline), base):
            reference = sampled(pipeline, {}).trajectory.outputs[0].o.detach()
        o = sampled(pipeline, {}).trajectory.outputs[0].o
        kl = gaussian_kl(waiting.groups.transitions[0], o, reference)
        parameters = trained_parameters(find_denoisers(pipeline))
        found = torch.autograd.grad(-50.0 * kl.sum(), list(parameters.values()))
    assert anchored.groups["kl"] == pytest.approx(kl.mean().item(), rel=1e-2)
    close(anchored, {name: free.gradient[name] + g for name, g in zip(parameters, found, strict=True)})


def test_beside_a_gradient_too(pipeline: Any) -> None:
    plain = learned(pipeline, sampled(pipeline, {}, differentiable=True), terms=BOTH)
    made = learned(pipeline, sampled(pipeline, {"loss": "grpo"}, differentiable=True), terms=BOTH)
    close(made, dict(plain.gradient))
    waiting = sampled(pipeline, {"loss": "grpo"}, differentiable=True)
    with newer(pipeline):
        late = learned(pipeline, waiting, terms=BOTH, version=2)
    assert late.groups["cosine"] != made.groups["cosine"]

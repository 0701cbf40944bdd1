"""The mathematics of one sampler batch, without Ray."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from rewards.terms import Mixing, RewardTerm
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.trained.lora import LoraSettings, attach, initial
from sdo_ray.prompts.inputs import OF_WEIGHTS
from sdo_ray.rollout.contribution import RewardFunction, compute_contribution
from sdo_ray.rollout.numbers import DIVERGED
from sdo_ray.rollout.other_policies import weights_in_place
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings

LORA = LoraSettings(rank=2, alpha=2.0, targets=["to_q", "to_v"])


@pytest.fixture(scope="module")
def pipeline(tiny_base: Path) -> Any:
    pipeline = load_pipeline(str(tiny_base))
    denoisers = find_denoisers(pipeline)
    attach(denoisers, LORA)
    weights = initial(str(tiny_base), "float32", LORA, seed=0)
    # B starts at zero, where A has no gradient.
    set_parameters(denoisers, {name: w + 0.1 * torch.ones_like(w) for name, w in weights.items()})
    return pipeline


def ink(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return -images.sum(dim=(1, 2, 3)), -torch.ones_like(images)


def contribution(
    pipeline: Any, rewards: RewardFunction, rows: Sequence[int] = (0, 1, 2), **changes: object
) -> Contribution:
    settings: dict = {
        "seed": 5,
        "sampling": SamplingSettings(num_inference_steps=4, guidance_scale=2.0),
        "plan": PlanSettings(name="sdo", options={"draw": "fixed", "at": [2]}),
        "rewards": rewards,
        "terms": [RewardTerm("ink", 1.0)],
        "mixing": Mixing(),
    }
    prompts = tuple("abcdefgh"[row] for row in rows)
    inputs = tuple(changes.pop("inputs", ()))
    return compute_contribution(pipeline, PromptBatch(0, tuple(rows), prompts, inputs), 0, **settings | changes)


def good(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
    scores, gradient = ink(images)
    return {"ink": scores}, {"ink": gradient}


def test_gradients_of_batches_add_up(pipeline: Any) -> None:
    whole = contribution(pipeline, good, rows=(0, 1, 2))
    parts = [contribution(pipeline, good, rows=(row,)) for row in (0, 1, 2)]
    assert whole.num_samples == 3
    assert whole.num_skipped == 0
    assert whole.scores["ink"] == pytest.approx([part.scores["ink"][0] for part in parts], rel=1e-5)
    for name, gradient in whole.gradient.items():
        # Batched and single matrix products differ in the order of their sums.
        torch.testing.assert_close(gradient, sum(part.gradient[name] for part in parts), rtol=1e-3, atol=1e-6)
    assert max(gradient.abs().max() for gradient in whole.gradient.values()) > 1e-4


def test_rows_weigh_what_they_teach(pipeline: Any) -> None:
    weights, terms = (2.0, 0.0, 1.0), [RewardTerm("ink", 1.0, weigh_by="w")]
    whole = contribution(pipeline, good, terms=terms, inputs=[{OF_WEIGHTS + "w": weight} for weight in weights])
    parts = [contribution(pipeline, good, rows=(row,)) for row in (0, 1, 2)]
    assert whole.mixed == pytest.approx([w * part.mixed[0] for w, part in zip(weights, parts, strict=True)], rel=1e-5)
    for name, gradient in whole.gradient.items():
        expected = sum(w * part.gradient[name] for w, part in zip(weights, parts, strict=True))
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_a_backward_pass_that_does_not_fit_is_made_in_halves_and_counted(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, rest = contribution(pipeline, good, (0, 1, 2), kept_graph="recompute"), []
    assert whole.num_splits == 0
    network = pipeline.unet.forward

    def fits_one_row(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and args[0].shape[0] > 1:  # both halves of guidance
            rest.append(args[0].shape[0])
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(*args, **kwargs)

    monkeypatch.setattr(pipeline.unet, "forward", fits_one_row)
    cut = contribution(pipeline, good, (0, 1, 2), kept_graph="recompute")
    assert cut.num_splits == len(rest) > 0
    assert (cut.num_samples, cut.num_skipped) == (3, 0)
    for name, gradient in whole.gradient.items():
        torch.testing.assert_close(cut.gradient[name], gradient, rtol=1e-3, atol=1e-6)


def test_the_same_batch_again_is_the_same(pipeline: Any) -> None:
    first, second = contribution(pipeline, good), contribution(pipeline, good)
    assert first.scores == second.scores
    assert all(torch.equal(first.gradient[name], second.gradient[name]) for name in first.gradient)


def test_rewards_draw_by_the_rows(pipeline: Any) -> None:
    """What a reward draws for a row is the same in whatever batch, and another for another run."""
    asked: list[list[int]] = []

    def recording(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
        asked.append(list(seeds))
        return good(images, prompts, seeds)

    for rows, seed in (((0, 1, 2), 5), ((1,), 5), ((1,), 6)):
        contribution(pipeline, recording, rows=rows, seed=seed)
    whole, one, other = asked
    assert len(set(whole)) == 3
    assert one == whole[1:2] != other


def test_the_kept_step_and_its_gradient_are_reported(pipeline: Any) -> None:
    norms = contribution(pipeline, good).step_norms
    assert list(norms) == [2]
    assert norms[2] > 0


@pytest.mark.parametrize("where", ["score", "gradient"])
def test_a_sample_that_is_not_finite_is_skipped(pipeline: Any, where: str) -> None:
    def bad(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
        scores, gradient = ink(images)
        if where == "score":
            scores[1] = torch.nan
        else:
            gradient[1, 0, 0, 0] = torch.inf
        return {"ink": scores}, {"ink": gradient}

    result = contribution(pipeline, bad)
    others = [contribution(pipeline, good, rows=(row,)) for row in (0, 2)]
    assert (result.num_samples, result.num_skipped) == (2, 1)
    assert len(result.scores["ink"]) == 3
    assert len(result.mixed) == 2
    for name, gradient in result.gradient.items():
        torch.testing.assert_close(gradient, sum(part.gradient[name] for part in others), rtol=1e-3, atol=1e-6)


def test_a_batch_whose_adapter_gradient_is_not_finite_is_skipped(pipeline: Any) -> None:
    def huge(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
        scores, gradient = ink(images)
        return {"ink": scores}, {"ink": gradient * 1e38}

    result = contribution(pipeline, huge, terms=[RewardTerm("ink", 1e6)])
    assert (result.num_samples, result.num_skipped, result.failure) == (0, 3, DIVERGED)
    assert all((gradient == 0).all() for gradient in result.gradient.values())


@pytest.mark.parametrize(("size", "samples_are_finite"), [(1e12, True), (1e30, False)])
def test_a_policy_that_has_diverged_is_named_as_the_failure_and_a_reward_is_not(
    pipeline: Any, size: float, samples_are_finite: bool
) -> None:
    """With the gradient through finite samples, or the samples themselves."""

    def broken(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
        scores, gradient = ink(images)
        return {"ink": scores * torch.nan}, {"ink": gradient}

    result = contribution(pipeline, broken)
    assert (result.num_samples, result.num_skipped, result.failure) == (0, 3, None)
    denoisers = find_denoisers(pipeline)
    huge = {name: torch.full_like(weights, size) for name, weights in trained_parameters(denoisers).items()}
    with weights_in_place(denoisers, huge):
        result = contribution(pipeline, good)
    assert (result.num_samples, result.num_skipped, result.failure) == (0, 3, DIVERGED)
    assert all(math.isfinite(score) for score in result.scores["ink"]) == samples_are_finite
    assert not result.gradient


def test_watching_changes_nothing(pipeline: Any) -> None:
    def watched(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
        scores, gradients = good(images, prompts, seeds)
        return scores | {"other": images.sum(dim=(1, 2, 3))}, gradients | {"other": None}

    terms = [RewardTerm("ink", 1.0), RewardTerm("other", 0.0)]
    alone, beside = contribution(pipeline, good), contribution(pipeline, watched, terms=terms)
    assert beside.scores.keys() == {"ink", "other"}
    assert all(torch.equal(alone.gradient[name], beside.gradient[name]) for name in alone.gradient)


@pytest.mark.parametrize("name", ["full", "draft", "flowbp-sparse", "leapalign"])
def test_every_kind_of_plan_runs(pipeline: Any, name: str) -> None:
    result = contribution(pipeline, good, plan=PlanSettings(name=name))
    assert result.num_samples == 3
    assert set(result.gradient) == set(trained_parameters(find_denoisers(pipeline)))
    assert all(gradient.isfinite().all() for gradient in result.gradient.values())


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "PNDMScheduler", "KDPM2DiscreteScheduler"])
def test_schedulers_that_take_more_steps_than_asked_for(pipeline: Any, name: str) -> None:
    before = pipeline.scheduler
    pipeline.scheduler = getattr(diffusers, name).from_config(before.config)
    try:
        for row in range(4):
            made = contribution(pipeline, good, rows=(row,), plan=PlanSettings(name="sdo"))
            assert made.num_samples == 1
            assert made.step_norms
            assert max(tensor.abs().max() for tensor in made.gradient.values()) > 0
    finally:
        pipeline.scheduler = before

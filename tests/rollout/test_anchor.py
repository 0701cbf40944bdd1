"""The anchor to the base model, against the loss itself where the kept step is the first, of noise alone."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from sdo_ray.backprop import PlanError
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.parameters import trained_parameters, trained_values
from sdo_ray.rollout.contribution import sample_batch
from sdo_ray.rollout.other_policies import Weights, weights_in_place
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.settings import Backward, KeptGraph, PlanSettings, SamplingSettings
from tests.rollout.test_contribution import contribution, good, pipeline
from tests.rollout.test_other_policies import moved, taken_back

__all__ = ["pipeline"]

FIRST = PlanSettings(name="sdo", options={"draw": "fixed", "at": [0]})
WEIGHT = 50.0


def first_output(pipeline: Any) -> torch.Tensor:
    """o_0 of `contribution`'s rows 0 to 2, with the graph of its denoiser call."""
    how = SamplingSettings(num_inference_steps=4, guidance_scale=2.0)
    batch = PromptBatch(0, (0, 1, 2), ("a", "b", "c"))
    o: torch.Tensor = (
        sample_batch(pipeline, batch, 0, seed=5, sampling=how, plan=FIRST, backward="sampler").trajectory.outputs[0].o
    )
    return o


def distances(pipeline: Any, base: Weights) -> torch.Tensor:
    """Of each row, with a graph."""
    with weights_in_place(find_denoisers(pipeline), base):
        reference = first_output(pipeline).detach()
    return (first_output(pipeline) - reference).square().flatten(1).mean(1)


def anchor_alone(pipeline: Any, base: Weights, rewards: Any = good, **how: Any) -> tuple[Contribution, dict]:
    """A contribution with an anchor, and what this has that one without has not."""

    def made(anchor: float) -> Contribution:
        one = contribution(pipeline, rewards, plan=FIRST, others={"base": base}, anchor=anchor, **how)
        return taken_back(pipeline, one) if one.calls else one

    anchored, free = made(WEIGHT), made(0.0)
    assert anchored.mixed == free.mixed
    return anchored, {name: g - free.gradient[name] for name, g in anchored.gradient.items()}


@pytest.mark.parametrize(
    ("kept_graph", "backward"), [("retain", "sampler"), ("recompute", "sampler"), ("retain", "trainer")]
)
def test_it_adds_its_gradient_at_the_kept_step(pipeline: Any, kept_graph: KeptGraph, backward: Backward) -> None:
    base, parameters = moved(pipeline), trained_parameters(find_denoisers(pipeline))
    before = {name: p.detach().clone() for name, p in parameters.items()}
    made, added = anchor_alone(pipeline, base, kept_graph=kept_graph, backward=backward)
    distance = distances(pipeline, base)
    assert made.groups["anchor"] == pytest.approx(distance.mean().item(), rel=1e-3)
    expected = torch.autograd.grad(-WEIGHT * distance.sum(), list(parameters.values()))
    size = max(g.abs().max().item() for g in expected)
    assert size > 0.01
    for name, g in zip(parameters, expected, strict=True):
        torch.testing.assert_close(added[name], g, rtol=5e-3, atol=2e-3 * size)
    assert all(torch.equal(p, before[name]) for name, p in parameters.items())


def test_its_gradient_is_that_of_finite_differences(pipeline: Any) -> None:
    base, own = moved(pipeline), trained_values(find_denoisers(pipeline))
    _, added = anchor_alone(pipeline, base)
    h, way = (
        1e-2,
        {name: g / math.sqrt(sum(float(g.square().sum()) for g in added.values())) for name, g in added.items()},
    )

    def objective(step: float) -> float:
        with weights_in_place(find_denoisers(pipeline), {name: w + step * way[name] for name, w in own.items()}):
            return -WEIGHT * distances(pipeline, base).sum().item()

    slope = (objective(h) - objective(-h)) / (2 * h)
    assert sum(float((added[name] * way[name]).sum()) for name in way) == pytest.approx(slope, rel=0.02)


def test_at_the_base_model_it_is_nothing(pipeline: Any) -> None:
    base = {name: w.clone() for name, w in trained_values(find_denoisers(pipeline)).items()}
    made, added = anchor_alone(pipeline, base)
    assert made.groups["anchor"] == pytest.approx(0.0, abs=1e-9)
    assert max(g.abs().max() for g in added.values()) < 1e-3 * max(g.abs().max() for g in made.gradient.values())


def test_samples_that_do_not_count_are_not_anchored(pipeline: Any) -> None:
    def one_missing(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
        scores, gradients = good(images, prompts, seeds)
        scores["ink"][1] = math.nan
        return scores, gradients

    base = moved(pipeline)
    made, added = anchor_alone(pipeline, base, one_missing)
    assert made.num_skipped == 1
    parameters = trained_parameters(find_denoisers(pipeline))
    expected = torch.autograd.grad(-WEIGHT * distances(pipeline, base)[[0, 2]].sum(), list(parameters.values()))
    size = max(g.abs().max().item() for g in expected)
    for name, g in zip(parameters, expected, strict=True):
        torch.testing.assert_close(added[name], g, rtol=5e-3, atol=2e-3 * size)


@pytest.mark.parametrize("plan", [{"name": "full"}, {"name": "sdo", "options": {"guidance": "prompt"}}])
def test_plans_whose_kept_steps_cannot_be_made_again_are_refused(pipeline: Any, plan: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="a plan of single calls that learns by both halves of guidance"):
        contribution(pipeline, good, plan=PlanSettings(**plan), others={"base": {}}, anchor=1.0)

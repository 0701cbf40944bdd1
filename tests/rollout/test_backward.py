"""The backward pass of kept steps on the sampler and on the trainer: the same gradient, through what really travels."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rewards.terms import RewardTerm
from sdo_ray.backprop import TraceError
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import attach, initial_policy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.training.modules import Denoisers


def ink(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
    weight = torch.linspace(-1, 1, images[0].numel()).view(images[0].shape)
    return {"ink": (images * weight).sum(dim=(1, 2, 3))}, {"ink": weight.expand_as(images)}


def policy(model: ModelSettings) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(2)
    return {n: w + 0.05 * torch.randn(w.shape, generator=noise) for n, w in initial_policy(model, 0).items()}


def contribution(model: ModelSettings, backward: str, plan: str, options: dict, guidance: float = 2.0) -> Contribution:
    pipeline = load_pipeline(model.base, model.dtype)
    set_parameters(attach(pipeline.components, model), policy(model))
    made = compute_contribution(
        pipeline,
        PromptBatch(0, (0, 1, 2), ("a", "b", "c")),
        0,
        seed=5,
        sampling=SamplingSettings(num_inference_steps=4, guidance_scale=guidance),
        plan=PlanSettings(name=plan, options=options),
        rewards=ink,
        terms=[RewardTerm("ink", 1.0)],
        normalize=False,
        backward=backward,
    )
    [row] = made.to_arrow().to_pylist()
    return Contribution.from_arrow(row)


def on_the_trainer(model: ModelSettings, made: Contribution) -> dict[str, torch.Tensor]:
    module = Denoisers(model, policy(model))
    module(made).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in module.named().items()}


def assert_same_gradient(model: ModelSettings, plan: str, options: dict, guidance: float = 2.0) -> None:
    here = contribution(model, "sampler", plan, options, guidance)
    there = contribution(model, "trainer", plan, options, guidance)
    assert there.gradient == {}
    assert here.calls == ()
    assert here.scores == there.scores
    assert here.step_norms == pytest.approx(there.step_norms)
    gradient = on_the_trainer(model, there)
    assert gradient.keys() == here.gradient.keys()
    size = max(tensor.abs().max() for tensor in gradient.values())
    assert size > 1e-3
    for name, tensor in here.gradient.items():
        torch.testing.assert_close(gradient[name], tensor, rtol=1e-4, atol=1e-6 * size, msg=name)


@pytest.mark.parametrize(
    ("plan", "options"),
    [
        ("sdo", {"K": 1}),
        ("sdo", {"K": 3, "unbiased": True}),
        ("draft", {"K": 1}),
        ("refl", {}),
        ("drtune", {"K": 2}),
        ("flowbp-sparse", {"K": 2}),
    ],
)
def test_same_gradient_for_every_plan_of_single_calls(tiny_base: Path, plan: str, options: dict) -> None:
    assert_same_gradient(ModelSettings(base=str(tiny_base)), plan, options)


@pytest.mark.parametrize("train", ["lora", "diffit", "full"])
def test_same_gradient_for_everything_trained(tiny_base: Path, train: str) -> None:
    assert_same_gradient(ModelSettings(base=str(tiny_base), train=train), "sdo", {"K": 1})


def test_same_gradient_without_guidance_and_in_half_precision(tiny_base: Path) -> None:
    assert_same_gradient(ModelSettings(base=str(tiny_base), dtype="bfloat16"), "sdo", {"K": 1}, guidance=0.0)


def test_what_travels_does_not_grow_with_the_model(tiny_base: Path) -> None:
    small, large = (
        contribution(ModelSettings(base=str(tiny_base), train=train), "trainer", "sdo", {"K": 1}).to_arrow().nbytes
        for train in ("lora", "full")
    )
    assert large == pytest.approx(small, rel=0.01)
    whole = contribution(ModelSettings(base=str(tiny_base), train="full"), "sampler", "sdo", {"K": 1}).to_arrow().nbytes
    assert whole > 10 * large


@pytest.mark.parametrize(("plan", "options"), [("full", {}), ("draft", {"K": 2}), ("draft-lv", {})])
def test_plans_of_coupled_steps_are_refused(tiny_base: Path, plan: str, options: dict) -> None:
    with pytest.raises(TraceError, match="elsewhere"):
        contribution(ModelSettings(base=str(tiny_base)), "trainer", plan, options)
